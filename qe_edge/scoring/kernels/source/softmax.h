// Weights of keys for a vector of queries.
#pragma once
#include "vectors.h"

constexpr int64_t WIDEST_HEAD = 256;

// weights [keys, W]: products become e^(product - largest), 0 for what a query does not see; returns their sums.
// most, least: the most and the fewest keys that one of the queries sees.
INLINE Floats softmax(float* weights, int64_t most, int64_t least, Ints seen) {
    Floats top = all(-3.0e38f), sums = {};
    for (int64_t j = 0; j < most; ++j) {
        const Floats found = load(weights + j * WIDTH);
        top = larger(top, j < least ? found : (seen > static_cast<int32_t>(j) ? found : top));
    }
    for (int64_t j = 0; j < most; ++j) {
        Floats weight = exponential(load(weights + j * WIDTH) - top);
        if (j >= least) weight = seen > static_cast<int32_t>(j) ? weight : Floats{};
        sums += weight;
        store(weights + j * WIDTH, weight);
    }
    return sums;
}
