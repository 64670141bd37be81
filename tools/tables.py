"""How tables are written: shared by the tools that print them."""

import statistics


def markdown(header, rows):
    """A table in Markdown, of lists of str; the first column to the left, all others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean(values, form):
    """The mean of numbers, written as ``form`` says; - of none."""
    return form.format(statistics.fmean(values)) if values else "-"


def spread(values, form):
    """Mean and, of more than one value, standard deviation, each written as ``form`` says; - of none."""
    middle = mean(values, form)
    return f"{middle} ± {form.format(statistics.stdev(values))}" if values and len(values) > 1 else middle


def number_at(run, path):
    """The number that lies in a run's results at the keys ``path``; None where there is none."""
    for key in path:
        run = run.get(key, {})
    return run if run != {} else None
