"""What the page does: spikes of one layer below the spectrogram, on one axis of time."""

SCRIPT = """
(async () => {
  "use strict";
  const data = JSON.parse(document.getElementById("trains").textContent);
  const byId = name => document.getElementById(name);
  const scroll = byId("scroll");
  if (!scroll) return;
  const sheet = byId("sheet"), layers = byId("layer"), zoom = byId("zoom"), said = byId("said"), cross = byId("cross");

  async function unpacked(packed) {
    if (!packed.values) {
      const bytes = Uint8Array.from(atob(packed.bytes), letter => letter.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      packed.values = new Uint8Array(await new Response(stream).arrayBuffer());
    }
    return packed.values;
  }

  const colour = name => {
    const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    return [1, 3, 5].map(place => parseInt(hex.slice(place, place + 2), 16));
  };

  // values of (frames, rows), drawn with time to the right; share is 0 to 1
  function image(canvas, frames, rows, share, upwards) {
    canvas.width = frames;
    canvas.height = rows;
    const context = canvas.getContext("2d"), pixels = context.createImageData(frames, rows), low = colour("--low"), high = colour("--high");
    for (let frame = 0; frame < frames; frame++)
      for (let row = 0; row < rows; row++) {
        const part = share(frame, row), place = 4 * ((upwards ? rows - 1 - row : row) * frames + frame);
        for (let of = 0; of < 3; of++) pixels.data[place + of] = low[of] + part * (high[of] - low[of]);
        pixels.data[place + 3] = 255;
      }
    context.putImageData(pixels, 0, 0);
  }

  // a canvas that is drawn in pixels of the screen, so that letters are sharp; canvases have a largest size
  function sharp(canvas, width, height) {
    const scale = Math.min(window.devicePixelRatio || 1, 16000 / width);
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = height + "px";
    const context = canvas.getContext("2d"), css = getComputedStyle(document.documentElement);
    context.scale(scale, scale);
    context.font = "11px system-ui, sans-serif";
    return [context, name => css.getPropertyValue(name).trim()];
  }

  function axis(width) {
    const [context, css] = sharp(byId("axis"), width, 20);
    const apart = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60].find(step => step * width / data.seconds > 55) || 60;
    const digits = Math.max(0, Math.ceil(-Math.log10(apart) - 1e-9));
    for (let number = 0; number * apart <= data.seconds; number++) {
      const x = number * apart * width / data.seconds;
      context.fillStyle = css("--line");
      context.fillRect(x, 0, 1, 5);
      context.fillStyle = css("--soft");
      context.fillText((number * apart).toFixed(digits) + " s", x + 3, 14);
    }
  }

  function share(width, layer, values) {
    const [context, css] = sharp(byId("share"), width, 46);
    const sums = new Float32Array(layer.frames);
    for (let frame = 0; frame < layer.frames; frame++)
      for (let neuron = 0; neuron < layer.shown; neuron++) sums[frame] += values[frame * layer.shown + neuron] / layer.levels;
    const most = Math.max(...sums) || 1, wide = width / layer.frames;
    context.fillStyle = css("--spiking");
    sums.forEach((sum, frame) => context.fillRect(frame * wide, 46 - 34 * sum / most, Math.max(wide - 0.5, 0.5), 34 * sum / most));
    context.fillStyle = css("--soft");
    context.fillText("firing in each frame, up to " + (100 * most / layer.shown).toFixed(1) + " % of all", 4, 10);
  }

  let layer = data.layers[0], values = null, features = null;

  async function draw() {
    features = await unpacked(data.features);
    image(byId("features"), data.features.frames, data.features.shown, (f, r) => features[f * data.features.shown + r] / 255, true);
    byId("features").style.height = "120px";
    if (layer) {
      values = await unpacked(layer);
      image(byId("train"), layer.frames, layer.shown, (f, r) => values[f * layer.shown + r] / layer.levels, false);
      byId("train").style.height = layer.shown * Math.max(1, Math.floor(360 / layer.shown)) + "px";
      const every = layer.every > 1 ? ", every " + layer.every + "th is drawn" : "";
      const levels = layer.levels > 1 ? ", up to " + layer.levels + " spikes a frame, darker or brighter for more" : "";
      byId("what").textContent = layer.neurons + " neurons" + every + ", " + layer.frames + " frames" + levels + ".";
    }
    size();
  }

  function size() {
    const least = Math.max(scroll.clientWidth, data.features.frames);
    const width = Math.min(Math.round(least * Math.pow(2, Number(zoom.value))), 30000);
    sheet.style.width = width + "px";
    axis(width);
    if (layer) share(width, layer, values);
  }

  function tell(event) {
    const box = sheet.getBoundingClientRect(), at = (event.clientX - box.left) / box.width;
    if (at < 0 || at >= 1) return;
    cross.style.display = "block";
    cross.style.left = event.clientX - box.left + "px";
    let text = (at * data.seconds).toFixed(3) + " s, frame " + Math.floor(at * data.features.frames) + " of the features";
    if (layer) {
      const frame = Math.floor(at * layer.frames), train = byId("train").getBoundingClientRect();
      const neuron = Math.floor((event.clientY - train.top) / train.height * layer.shown);
      text += ", " + frame + " of the layer";
      if (neuron >= 0 && neuron < layer.shown && event.target.id === "train")
        text += "; neuron " + neuron * layer.every + " fires " + values[frame * layer.shown + neuron] + " of " + layer.levels;
    }
    said.textContent = text;
  }

  function choose(number) {
    layers.selectedIndex = Math.min(Math.max(number, 0), data.layers.length - 1);
    layer = data.layers[layers.selectedIndex];
    draw();
  }

  if (layers) {
    layers.addEventListener("change", () => choose(layers.selectedIndex));
    byId("before").addEventListener("click", () => choose(layers.selectedIndex - 1));
    byId("after").addEventListener("click", () => choose(layers.selectedIndex + 1));
  }
  zoom.addEventListener("input", () => {
    const middle = (scroll.scrollLeft + scroll.clientWidth / 2) / sheet.clientWidth;
    size();
    scroll.scrollLeft = middle * sheet.clientWidth - scroll.clientWidth / 2;
  });
  scroll.addEventListener("mousemove", tell);
  scroll.addEventListener("mouseleave", () => { cross.style.display = "none"; said.textContent = ""; });
  window.addEventListener("resize", size);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  await draw();
  document.documentElement.dataset.drawn = "yes";
})();
"""
