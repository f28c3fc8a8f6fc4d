// What multiplies uint8 activations with int8 weights: some tokens with some channels, from two of them on.
#pragma once
#ifndef __AVX512F__
#include "byte_pairs.h"
#endif
#include "on_vectors.h"

// TOKENS_AT_ONCE tokens, of which `rows` count, times CHANNELS_AT_ONCE channels from `first` and from `second` on make a
// `Meeting`. between() is called once for every 64 inputs.
#ifdef __AVX512F__
struct ByteTiles {
    using Ready = FullTiles;
    static constexpr int64_t TOKENS_AT_ONCE = 2 * WIDTH, CHANNELS_AT_ONCE = WIDTH;

    template <typename Between>
    ANY_UNIT_INLINE void multiply(const uint8_t* tokens, int64_t rows, int64_t depth, Block first, Block second,
                                  Meeting<ByteTiles>& to, Between between) {
        if (rows > static_cast<int64_t>(WIDTH))
            multiply_tiles<true>(tokens, depth, first, second, to, between);
        else
            multiply_tiles<false>(tokens, depth, first, second, to, between);
    }

  private:
    // The tile unit works on its own: `between` is called after what a step needs was handed to it.
    template <bool BOTH, typename Between>
    ANY_UNIT_INLINE void multiply_tiles(const uint8_t* tokens, int64_t depth, Block first, Block second,
                                        Meeting<ByteTiles>& to, Between between) {
        _tile_loadd(0, first.start, 0);  // one row for all tokens
        _tile_loadd(1, second.start, 0);
        if (BOTH) _tile_loadd(2, first.start, 0);
        if (BOTH) _tile_loadd(3, second.start, 0);
        for (int64_t k = 0; k < depth; k += DEPTH) {
            _tile_loadd(4, tokens + k, depth);
            _tile_loadd(5, first.weights + k * BLOCK, DEPTH);
            _tile_dpbusd(0, 4, 5);
            _tile_loadd(6, second.weights + k * BLOCK, DEPTH);
            _tile_dpbusd(1, 4, 6);
            if (BOTH) {
                _tile_loadd(7, tokens + WIDTH * depth + k, depth);
                _tile_dpbusd(2, 7, 5);
                _tile_dpbusd(3, 7, 6);
            }
            between();
        }
        _tile_stored(0, to.sums[0][0][0], DEPTH);
        _tile_stored(1, to.sums[1][0][0], DEPTH);
        if (BOTH) _tile_stored(2, to.sums[0][0][WIDTH], DEPTH);
        if (BOTH) _tile_stored(3, to.sums[1][0][WIDTH], DEPTH);
    }
};
#endif

struct ByteDots : OnVectors<ByteDots> {
    static constexpr int64_t TOKENS_AT_ONCE = WIDTH, CHANNELS_AT_ONCE = BLOCK, IN_REGISTERS = WIDTH / 2;

    // By itself, so that what `between` keeps in registers takes none of these.
    ANY_UNIT static __attribute__((noinline)) void multiply_block(const uint8_t* tokens, int64_t depth, Block block,
                                                                  int32_t (*left)[WIDTH], int32_t (*right)[WIDTH]) {
        const int8_t* weights = block.weights;
        Ints sums[IN_REGISTERS][2];
#pragma GCC unroll 8
        for (int64_t i = 0; i < IN_REGISTERS; ++i) {
            sums[i][0] = load_ints(block.start);
            sums[i][1] = load_ints(block.start + WIDTH);
        }
        for (int64_t k = 0; k < depth; k += DEPTH, weights += 2 * TILE)
            for (int64_t four = 0; four < DEPTH; four += 4) {
                const Ints of_left = load_ints(weights + four * WIDTH),
                           of_right = load_ints(weights + TILE + four * WIDTH);
#pragma GCC unroll 8
                for (int64_t i = 0; i < IN_REGISTERS; ++i) {
                    const Words bytes = all_words(tokens + i * depth + k + four);
                    sums[i][0] = add_dots(sums[i][0], bytes, of_left);
                    sums[i][1] = add_dots(sums[i][1], bytes, of_right);
                }
            }
#pragma GCC unroll 8
        for (int64_t i = 0; i < IN_REGISTERS; ++i) {
            *reinterpret_cast<LooseInts*>(left[i]) = sums[i][0];
            *reinterpret_cast<LooseInts*>(right[i]) = sums[i][1];
        }
    }
};

#ifdef __AVX512F__
using Special = ByteTiles;
using General = ByteDots;
constexpr Unit SPECIAL = Unit::TILES;
#else
using Special = ByteDots;
using General = BytePairs;
constexpr Unit SPECIAL = Unit::DOTS;
#endif
