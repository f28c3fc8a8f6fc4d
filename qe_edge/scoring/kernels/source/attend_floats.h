// Attention of one group of heads in float32, for W queries at a time, the numbers of a vector.
#pragma once
#include "softmax.h"
#include "vectors.h"

// Keys and values: those of the past, then those of the row, `stride` numbers from one value of the row to the next.
struct FloatGroup {
    const float *past_keys, *past_values, *keys, *values;
    int64_t past, stride;
};

// [W, D] becomes [D, W].
INLINE void transposed(const float* values, int64_t head, float* turned) {
    for (int64_t part = 0; part < head; part += WIDTH) {
        Floats rows[WIDTH];
        for (size_t i = 0; i < WIDTH; ++i) rows[i] = load(values + i * head + part);
        transpose(rows);
        for (size_t i = 0; i < WIDTH; ++i) store(turned + (part + i) * WIDTH, rows[i]);
    }
}

// weights[j] = the products of key j [D] with W queries [D, W].
INLINE void products(const float* queries, const float* keys, int64_t count, int64_t head, float* weights) {
    constexpr int64_t AT_ONCE = 8;
    int64_t j = 0;
    for (; j + AT_ONCE <= count; j += AT_ONCE) {
        Floats sums[AT_ONCE] = {};
        const float* from = keys + j * head;
        for (int64_t d = 0; d < head; ++d) {
            const Floats query = load(queries + d * WIDTH);
#pragma GCC unroll 8
            for (int64_t i = 0; i < AT_ONCE; ++i) sums[i] += from[i * head + d] * query;
        }
#pragma GCC unroll 8
        for (int64_t i = 0; i < AT_ONCE; ++i) store(weights + (j + i) * WIDTH, sums[i]);
    }
    for (; j < count; ++j) {
        Floats found = {};
        for (int64_t d = 0; d < head; ++d) found += keys[j * head + d] * load(queries + d * WIDTH);
        store(weights + j * WIDTH, found);
    }
}

// sums[d] += number d of every value times its weights, for W numbers and W queries.
INLINE void mix(const float* weights, const float* values, int64_t count, int64_t stride, Floats sums[WIDTH]) {
    for (int64_t j = 0; j < count; ++j) {
        const Floats weight = load(weights + j * WIDTH);
#pragma GCC unroll 16
        for (size_t i = 0; i < WIDTH; ++i) sums[i] += values[j * stride + i] * weight;
    }
}

// mixed [W, D] = softmax(queries [W, D] times keys) times values, each query with the first keys that it sees.
// weights: scratch [keys, W].
INLINE void attend_queries(const float* queries, const FloatGroup& group, int64_t head, const Lanes& lanes,
                           float* weights, float* mixed) {
    alignas(64) float turned[WIDTH * WIDEST_HEAD];
    transposed(queries, head, turned);
    const int64_t of_past = lanes.most < group.past ? lanes.most : group.past, of_row = lanes.most - of_past;
    products(turned, group.past_keys, of_past, head, weights);
    products(turned, group.keys, of_row, head, weights + of_past * WIDTH);
    const Floats total = softmax(weights, lanes);
    for (int64_t part = 0; part < head; part += WIDTH) {
        Floats sums[WIDTH] = {};
        mix(weights, group.past_values + part, of_past, head, sums);
        mix(weights + of_past * WIDTH, group.values + part, of_row, group.stride, sums);
        for (size_t i = 0; i < WIDTH; ++i) sums[i] = sums[i] / total;
        transpose(sums);
        for (size_t lane = 0; lane < WIDTH; ++lane) store(mixed + lane * head + part, sums[lane]);
    }
}
