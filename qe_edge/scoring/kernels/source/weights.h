// Weights of products in the order in which kernels take them.
#pragma once
#include <stdint.h>

#include "vectors.h"

constexpr int64_t DEEPEST = 1 << 16;  // inputs whose products stay within 32 bits
constexpr int64_t DEPTH = 64;         // inputs that a tile holds of a token or a channel
constexpr int64_t BLOCK = 2 * WIDTH;  // channels whose weights lie together
constexpr int64_t TILE = DEPTH * WIDTH;  // numbers of a tile

// Weights [K, N] in the order in which they are used: [N / 2W, K / 64, 2, 16, W, 4], W numbers a register, so that a tile
// holds W channels and 64 inputs, and its rows, each a vector, four inputs of every channel side by side.
static void pack(const int8_t* weights, int64_t depth, int64_t channels, int8_t* packed) {
    for (int64_t block = 0; block < channels / BLOCK; ++block)
        for (int64_t k = 0; k < depth; k += 4) {
            const int8_t* from = weights + k * channels + block * BLOCK;
            int8_t* to = packed + block * BLOCK * depth + k / DEPTH * 2 * TILE + k % DEPTH / 4 * REGISTER;
            for (int64_t half = 0; half < 2; ++half, from += WIDTH, to += TILE)
                for (size_t n = 0; n < WIDTH; ++n)
                    for (int64_t i = 0; i < 4; ++i) to[4 * n + i] = from[i * channels + n];
        }
}

static void sum_up(const int8_t* weights, int64_t depth, int64_t channels, int32_t* sums) {
    for (int64_t n = 0; n < channels; ++n) sums[n] = 0;
    for (int64_t k = 0; k < depth; ++k)
        for (int64_t n = 0; n < channels; ++n) sums[n] += weights[k * channels + n];
}

// See `qe_edge_expand`.
static void expand(const uint8_t* fours, const float* divisors, const int8_t* zeros, int64_t depth, int64_t channels,
                   int8_t* weights) {
    constexpr int64_t TOGETHER = 32;  // inputs with the same divisors
    for (int64_t k = 0; k < depth; ++k)
        for (int64_t n = 0; n < channels; ++n) {
            const int64_t of_block = k / TOGETHER * channels + n, place = k * channels + n;
            const float four = static_cast<float>(fours[place / 2] >> place % 2 * 4 & 15);
            const float value = __builtin_rintf(four / divisors[of_block]) + static_cast<float>(zeros[of_block]);
            weights[place] = static_cast<int8_t>(value > -128.f ? (value < 127.f ? value : 127.f) : -128.f);
        }
}

// Weights of the channels from one on to the end of their block, and what goes with them.
struct Block {
    const int8_t* weights;
    const int32_t* start;  // of the sum of each channel
    const int32_t* order;  // what `BytePairs` needs to know of the weights
};

// Where some tokens meet channels from two on: what was multiplied there.
template <typename Multiplier>
struct Meeting {
    int64_t token, channel;
    alignas(64) int32_t sums[2][Multiplier::CHANNELS_AT_ONCE / WIDTH][Multiplier::TOKENS_AT_ONCE][WIDTH];
};
