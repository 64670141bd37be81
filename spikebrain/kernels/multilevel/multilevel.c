/* Multi-level firing on rows of C channels: one pass forward, one pass back.
 *
 * x, y, grad are (batch * frames, channels), row-major; counts[b] is the number of valid
 * frames of utterance b. The file includes itself once for float and once for double.
 * A code byte holds the level in bits 0-6 and, in bit 7, whether 0 <= u <= levels.
 */
#ifndef REAL

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#define THREADS omp_get_max_threads()
#define THREAD omp_get_thread_num()
#else
#define THREADS 1
#define THREAD 0
#endif
#define BLOCK 32    /* rows summed in REAL before they are added to a double */
#define GRAIN 32768 /* elements below which a second thread costs more than it brings */

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

#define REAL float
#define NAME(f) JOIN(f, float)
#define FLOOR floorf
#include "multilevel.c"
#undef REAL
#undef NAME
#undef FLOOR
#define REAL double
#define NAME(f) JOIN(f, double)
#define FLOOR floor
#include "multilevel.c"

#else

/* Largest valid value of every channel and the row where it is first reached. */
void NAME(channel_max)(const REAL *x, const int64_t *counts, int64_t batch, int64_t frames, int64_t channels, REAL *top, int64_t *row)
{
    int threads = batch * frames * channels < GRAIN ? 1 : THREADS;
    REAL *best = malloc(threads * channels * sizeof(REAL));
    int32_t *where = malloc(threads * channels * sizeof(int32_t));
    memset(where, 0xff, threads * channels * sizeof(int32_t));
#pragma omp parallel num_threads(threads)
    {
        REAL *m = best + THREAD * channels;
        int32_t *w = where + THREAD * channels;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < batch * frames; r++) {
            if (r % frames >= counts[r / frames])
                continue;
            const REAL *xr = x + r * channels;
            int32_t here = (int32_t)r;
            for (int64_t c = 0; c < channels; c++) {
                int better = w[c] < 0 || xr[c] > m[c];
                m[c] = better ? xr[c] : m[c];
                w[c] = better ? here : w[c];
            }
        }
    }
    for (int64_t c = 0; c < channels; c++) {
        int64_t at = -1;
        REAL value = 0;
        for (int t = 0; t < threads; t++) { /* static chunks are in row order: the first arg-max wins */
            int32_t w = where[t * channels + c];
            if (w >= 0 && (at < 0 || best[t * channels + c] > value)) {
                at = w;
                value = best[t * channels + c];
            }
        }
        top[c] = value;
        row[c] = at;
    }
    free(best);
    free(where);
}

/* u = x / top * ratio ; s = floor(clip(u + offset, 0, levels)) ; y = s * gain ; NaN stays NaN. */
void NAME(fire)(const REAL *x, const REAL *top, const REAL *gain, const int64_t *counts, int64_t batch, int64_t frames, int64_t channels,
                int64_t levels, double ratio_, double offset_, REAL *y, uint8_t *code)
{
    const REAL ratio = ratio_, offset = offset_, most = levels;
#pragma omp parallel for schedule(static) if (batch * frames * channels >= GRAIN)
    for (int64_t r = 0; r < batch * frames; r++) {
        const REAL *restrict xr = x + r * channels;
        REAL *restrict yr = y + r * channels;
        uint8_t *restrict cr = code + r * channels;
        if (r % frames >= counts[r / frames]) {
            memset(yr, 0, channels * sizeof(REAL));
            memset(cr, 0, channels);
            continue;
        }
        for (int64_t c = 0; c < channels; c++) {
            REAL u = xr[c] / top[c] * ratio;
            REAL v = u + offset;
            v = v < 0 ? 0 : v; /* both comparisons let NaN through */
            v = v > most ? most : v;
            v = FLOOR(v);
            int32_t inside = (u >= 0) & (u <= most);
            yr[c] = v * gain[c];
            cr[c] = (uint8_t)((int32_t)v | (inside << 7));
        }
    }
}

/* dx = grad * slope[c] inside ; through[c] = sum of grad * middle(level) inside, from which the derivative by top follows.
 * The middle of the part of [0, levels] that fires s spikes: (max(s - offset, 0) + min(s + 1 - offset, levels)) / 2. */
void NAME(fire_backward)(const REAL *grad, const uint8_t *code, const REAL *slope, int64_t rows, int64_t channels, int64_t levels,
                         double offset_, REAL *dx, double *through)
{
    const REAL offset = offset_, most = levels;
    int threads = rows * channels < GRAIN ? 1 : THREADS;
    int64_t blocks = (rows + BLOCK - 1) / BLOCK;
    double *sums = calloc(threads * channels, sizeof(double));
    REAL *partial = malloc(threads * channels * sizeof(REAL));
#pragma omp parallel num_threads(threads)
    {
        double *restrict sum = sums + THREAD * channels;
        REAL *restrict part = partial + THREAD * channels;
#pragma omp for schedule(static)
        for (int64_t b = 0; b < blocks; b++) {
            int64_t end = (b + 1) * BLOCK < rows ? (b + 1) * BLOCK : rows;
            memset(part, 0, channels * sizeof(REAL));
            for (int64_t r = b * BLOCK; r < end; r++) {
                const REAL *restrict g = grad + r * channels;
                const uint8_t *restrict cr = code + r * channels;
                REAL *restrict d = dx + r * channels;
                for (int64_t c = 0; c < channels; c++) {
                    REAL passed = g[c] * (REAL)(cr[c] >> 7);
                    REAL low = (REAL)(cr[c] & 127) - offset, high = low + 1;
                    low = low > 0 ? low : 0;
                    high = high < most ? high : most;
                    d[c] = passed * slope[c];
                    part[c] += passed * (low + high);
                }
            }
            for (int64_t c = 0; c < channels; c++)
                sum[c] += (double)part[c];
        }
    }
    for (int64_t c = 0; c < channels; c++) {
        through[c] = 0;
        for (int t = 0; t < threads; t++)
            through[c] += sums[t * channels + c] / 2;
    }
    free(sums);
    free(partial);
}

/* The levels of code bytes, as reals, times gain[c]; every `period` rows share a row of gains. */
void NAME(decode)(const uint8_t *code, const REAL *gain, int64_t rows, int64_t period, int64_t channels, REAL *out)
{
#pragma omp parallel for schedule(static) if (rows * channels >= GRAIN)
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *restrict cr = code + r * channels;
        const REAL *restrict one = gain + r / period * channels;
        REAL *restrict o = out + r * channels;
        for (int64_t c = 0; c < channels; c++)
            o[c] = (REAL)(cr[c] & 127) * one[c];
    }
}

#endif
