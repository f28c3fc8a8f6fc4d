// Products with AVX2 alone.
#pragma once
#include <initializer_list>

#include "on_vectors.h"
#include "pair_order.h"

struct BytePairs : OnVectors<BytePairs> {
    static constexpr int64_t TOKENS_AT_ONCE = WIDTH, CHANNELS_AT_ONCE = BLOCK, IN_REGISTERS = 4;

    INLINE void multiply_block(const uint8_t* tokens, int64_t depth, Block block, int32_t (*left)[WIDTH],
                               int32_t (*right)[WIDTH]) {
        Ints sums[IN_REGISTERS][2];
#pragma GCC unroll 4
        for (int64_t i = 0; i < IN_REGISTERS; ++i) {
            sums[i][0] = load_ints(block.start);
            sums[i][1] = load_ints(block.start + WIDTH);
        }
        const int8_t* weights = block.weights;
        const uint16_t* input = reinterpret_cast<const uint16_t*>(block.order + 2);
        const uint16_t* const end = input + depth / GROUP;
        for (const uint16_t* const stop = input + 2 * block.order[0]; input < stop; input += 2, weights += 2 * GROUP_BYTES)
#pragma GCC unroll 4
            for (int64_t i = 0; i < IN_REGISTERS; ++i)
#pragma GCC unroll 2
                for (int64_t half = 0; half < 2; ++half)
                    sums[i][half] += widened(
                        _mm256_add_epi16(pairs(tokens + i * depth + input[0], weights + half * REGISTER),
                                         pairs(tokens + i * depth + input[1], weights + GROUP_BYTES + half * REGISTER)));
        for (const uint16_t* const stop = input + block.order[1]; input < stop; ++input, weights += GROUP_BYTES)
#pragma GCC unroll 4
            for (int64_t i = 0; i < IN_REGISTERS; ++i)
#pragma GCC unroll 2
                for (int64_t half = 0; half < 2; ++half)
                    sums[i][half] += widened(pairs(tokens + i * depth + *input, weights + half * REGISTER));
#pragma GCC unroll 4
        for (int64_t i = 0; i < IN_REGISTERS; ++i) {
            *reinterpret_cast<LooseInts*>(left[i]) = sums[i][0];
            *reinterpret_cast<LooseInts*>(right[i]) = sums[i][1];
        }
        if (input < end) add_halved(tokens, depth, input, end, weights, left, right);
    }

  private:
    // [2 * W] in 16 bits: products of pairs.
    INLINE __m256i pairs(const uint8_t* token, const int8_t* weights) {
        return _mm256_maddubs_epi16((__m256i)all_words(token), (__m256i)load_ints(weights));
    }
    INLINE Ints widened(__m256i sums, int16_t factor = 1) {
        return (Ints)_mm256_madd_epi16(sums, _mm256_set1_epi16(factor));
    }

    // The groups of which a pair is too large.
    static __attribute__((noinline)) void add_halved(const uint8_t* tokens, int64_t depth, const uint16_t* input,
                                                     const uint16_t* end, const int8_t* weights,
                                                     int32_t (*left)[WIDTH], int32_t (*right)[WIDTH]) {
        for (; input < end; ++input)
            for (int32_t(*to)[WIDTH] : {left, right}) {
                alignas(REGISTER) int8_t twos[REGISTER], rest[REGISTER];  // 2 * twos + rest are the weights
                for (size_t n = 0; n < REGISTER; ++n, ++weights) {
                    twos[n] = static_cast<int8_t>(*weights >> 1);
                    rest[n] = *weights & 1;
                }
                for (int64_t i = 0; i < IN_REGISTERS; ++i)
                    *reinterpret_cast<LooseInts*>(to[i]) += widened(pairs(tokens + i * depth + *input, twos), 2) +
                                                            widened(pairs(tokens + i * depth + *input, rest));
            }
    }
};
