/* What the bench's two programs share: a clock, memory or death, and durations summed up as shares of all. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct times { float *us; size_t len, cap; };

static void *or_die(void *memory) {
    if (!memory) { perror("out of memory"); exit(1); }
    return memory;
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static inline void note(struct times *times, uint64_t elapsed_ns) {
    if (times->len == times->cap) {
        times->cap = times->cap ? 2 * times->cap : 4096;
        times->us = or_die(realloc(times->us, times->cap * sizeof *times->us));
    }
    times->us[times->len++] = (float)elapsed_ns / 1e3f;
}

static inline int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static inline void print_times(const char *name, struct times *times) {
    static const double shares[] = {0.5, 0.9, 0.99, 1};
    static const char *const labels[] = {"p50", "p90", "p99", "max"};
    if (times->len) qsort(times->us, times->len, sizeof *times->us, by_size);
    printf(",\"%s_us\":{", name);
    for (int i = 0; i < 4; i++) {
        size_t at = times->len ? (size_t)(shares[i] * (double)(times->len - 1) + 0.5) : 0;
        printf("%s\"%s\":%.1f", i ? "," : "", labels[i], times->len ? (double)times->us[at] : 0.0);
    }
    printf("}");
}
