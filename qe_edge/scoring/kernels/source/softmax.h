// Weights of keys for a vector of queries.
#pragma once
#include "vectors.h"

constexpr int64_t WIDEST_HEAD = 256;

// A vector of queries: how many keys each sees, the most and the fewest that one of them does.
struct Lanes {
    Ints seen;
    int32_t most, least;
};

// weights [keys, W]: products become e^(product - largest), 0 for what a query does not see; returns their sums.
INLINE Floats softmax(float* weights, const Lanes& lanes) {
    const int64_t most = lanes.most, least = lanes.least;
    Floats tops[] = {all(-3.0e38f), all(-3.0e38f), all(-3.0e38f), all(-3.0e38f)}, sums = {};
    int64_t key = 0;
    for (; key + 4 <= least; key += 4)
#pragma GCC unroll 4
        for (int64_t i = 0; i < 4; ++i) tops[i] = larger(tops[i], load(weights + (key + i) * WIDTH));
    Floats top = larger(larger(tops[0], tops[1]), larger(tops[2], tops[3]));
    for (; key < most; ++key)
        top = larger(top, lanes.seen > static_cast<int32_t>(key) ? load(weights + key * WIDTH) : top);
    for (int64_t j = 0; j < most; ++j) {
        Floats weight = exponential(load(weights + j * WIDTH) - top);
        if (j >= least) weight = lanes.seen > static_cast<int32_t>(j) ? weight : Floats{};
        sums += weight;
        store(weights + j * WIDTH, weight);
    }
    return sums;
}
