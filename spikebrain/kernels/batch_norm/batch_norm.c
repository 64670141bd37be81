/* Batch normalisation over the valid frames of (batch, frames, channels): sums in double, one pass over memory each.
 *
 * counts[b] is the number of valid frames of utterance b. A thread takes whole utterances, so that no sum depends on the
 * number of threads. What is done with a handful of numbers a channel stands here too: as torch operations these, some thirty a
 * layer, take longer than the passes. The file includes itself once for float and once for double.
 */
#ifndef REAL

#include <math.h>
#include <stdint.h>
#include <string.h>
#define CHUNK 64
#define GRAIN 32768 /* elements below which a second thread costs more than it brings */

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

#define REAL float
#define NAME(f) JOIN(f, float)
#include "batch_norm.c"
#undef REAL
#undef NAME
#define REAL double
#define NAME(f) JOIN(f, double)
#include "batch_norm.c"

#else

/* total (2 channels + 1): sums of a and of a * b, and the number of frames. parts (2, batch, channels) are those of each utterance. */
void NAME(sums)(const REAL *a, const REAL *b, const int64_t *counts, int64_t batch, int64_t frames, int64_t channels, double *parts,
                double *total)
{
    const int64_t chunks = (channels + CHUNK - 1) / CHUNK;
#pragma omp parallel for schedule(static) if (batch * frames * channels >= GRAIN)
    for (int64_t job = 0; job < batch * chunks; job++) {
        const int64_t u = job / chunks, first = job % chunks * CHUNK;
        const int64_t n = channels - first < CHUNK ? channels - first : CHUNK;
        double one[CHUNK] = {0}, two[CHUNK] = {0};
        for (int64_t t = 0; t < counts[u]; t++) {
            const REAL *restrict at = a + (u * frames + t) * channels + first, *restrict bt = b + (u * frames + t) * channels + first;
            for (int64_t c = 0; c < n; c++) {
                one[c] += at[c];
                two[c] += (double)at[c] * bt[c];
            }
        }
        memcpy(parts + u * channels + first, one, n * sizeof(double));
        memcpy(parts + (batch + u) * channels + first, two, n * sizeof(double));
    }
    memset(total, 0, (2 * channels + 1) * sizeof(double));
    for (int64_t u = 0; u < batch; u++) {
        const double *restrict one = parts + u * channels, *restrict two = one + batch * channels;
        for (int64_t c = 0; c < channels; c++) {
            total[c] += one[c];
            total[channels + c] += two[c];
        }
        total[2 * channels] += counts[u];
    }
}

/* found (2 channels + 1): mean, biased variance and number of frames, from sums of x, of its square, and that number. */
void NAME(moments)(const double *total, int64_t channels, double *found)
{
    const double frames = total[2 * channels];
    for (int64_t c = 0; c < channels; c++) {
        const double mean = total[c] / frames, var = total[channels + c] / frames - mean * mean;
        found[c] = mean;
        found[channels + c] = var < 0 ? 0 : var;
    }
    found[2 * channels] = frames;
}

/* map (2, channels): scale and shift with which x * scale + shift is the normalised x. */
void NAME(affine)(const double *found, const REAL *weight, const REAL *bias, double eps, int64_t channels, REAL *map)
{
    for (int64_t c = 0; c < channels; c++) {
        const double scale = weight[c] / sqrt(found[channels + c] + eps);
        map[c] = scale;
        map[channels + c] = bias[c] - found[c] * scale;
    }
}

/* by (2, channels): sums of the derivative by y and of its product with x -> derivatives by bias and by weight, in place. */
void NAME(by_parameters)(double *by, const double *found, double eps, int64_t channels, REAL *by_weight, REAL *by_bias)
{
    for (int64_t c = 0; c < channels; c++) {
        by[channels + c] = (by[channels + c] - found[c] * by[c]) / sqrt(found[channels + c] + eps);
        by_bias[c] = by[c];
        by_weight[c] = by[channels + c];
    }
}

/* map (3, channels), with which dx = dy * map[0] + x * map[1] + map[2]; by are the derivatives by bias and weight of all processes. */
void NAME(by_input)(const double *by, const double *found, const REAL *weight, double eps, int64_t channels, REAL *map)
{
    const double frames = found[2 * channels];
    for (int64_t c = 0; c < channels; c++) {
        const double rstd = 1 / sqrt(found[channels + c] + eps), scale = weight[c] * rstd;
        const double by_x = -scale * rstd * by[channels + c] / frames;
        map[c] = scale;
        map[channels + c] = by_x;
        map[2 * channels + c] = -scale * by[c] / frames - by_x * found[c];
    }
}

/* Running averages (channels) take over the share momentum of a batch's mean and unbiased variance. */
void NAME(update)(const double *found, double momentum, int64_t channels, REAL *mean, REAL *var)
{
    const double frames = found[2 * channels], unbiased = frames / (frames > 2 ? frames - 1 : 1);
    for (int64_t c = 0; c < channels; c++) {
        mean[c] += momentum * (found[c] - mean[c]);
        var[c] += momentum * (found[channels + c] * unbiased - var[c]);
    }
}

/* out = a * by_a + b * by_b + shift on valid frames, 0 past them; without b, a * by_a + shift. out may be a. */
void NAME(mix)(const REAL *a, const REAL *by_a, const REAL *b, const REAL *by_b, const REAL *shift, const int64_t *counts, int64_t batch,
               int64_t frames, int64_t channels, REAL *out)
{
#pragma omp parallel for schedule(static) if (batch * frames * channels >= GRAIN)
    for (int64_t r = 0; r < batch * frames; r++) {
        const REAL *ar = a + r * channels, *br = b + r * channels;
        REAL *o = out + r * channels;
        if (r % frames >= counts[r / frames])
            memset(o, 0, channels * sizeof(REAL));
        else if (b)
#pragma omp simd
            for (int64_t c = 0; c < channels; c++)
                o[c] = ar[c] * by_a[c] + br[c] * by_b[c] + shift[c];
        else
#pragma omp simd
            for (int64_t c = 0; c < channels; c++)
                o[c] = ar[c] * by_a[c] + shift[c];
    }
}

#endif
