/* Batch normalisation over the valid frames of (batch, frames, channels): sums in double, one pass over memory each.
 *
 * counts[b] is the number of valid frames of utterance b. A thread takes whole utterances, so that no sum depends on the
 * number of threads. The file includes itself once for float and once for double.
 */
#ifndef REAL

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

/* sums (2, batch, channels): over an utterance's frames, of a and of a * b. */
void NAME(sums)(const REAL *a, const REAL *b, const int64_t *counts, int64_t batch, int64_t frames, int64_t channels, double *sums)
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
        memcpy(sums + u * channels + first, one, n * sizeof(double));
        memcpy(sums + (batch + u) * channels + first, two, n * sizeof(double));
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
