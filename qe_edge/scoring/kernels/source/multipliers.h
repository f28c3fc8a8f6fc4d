// What multiplies uint8 activations with int8 weights: a tile's tokens with two blocks of weights.
#pragma once
#ifndef __AVX512F__
#include "byte_pairs.h"
#endif
#include "units.h"
#include "weights.h"

#ifdef __AVX512F__
struct ByteTiles {
    using Ready = FullTiles;

    // The sums of a meeting. The tile unit works on its own meanwhile: `between(step)` is called after what each 64
    // inputs need was handed to it.
    template <typename Between>
    ANY_UNIT_INLINE void multiply(const uint8_t* tokens, int64_t depth, Block first, Block second,
                                  Meeting& to, Between between) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t k = 0; k < depth; k += DEPTH, first.weights += 2 * TILE, second.weights += 2 * TILE) {
            _tile_loadd(4, tokens + k, depth);
            _tile_loadd(5, first.weights, DEPTH);
            _tile_dpbusd(0, 4, 5);
            _tile_loadd(6, first.weights + TILE, DEPTH);
            _tile_dpbusd(1, 4, 6);
            _tile_loadd(7, second.weights, DEPTH);
            _tile_dpbusd(2, 4, 7);
            _tile_loadd(5, second.weights + TILE, DEPTH);
            _tile_dpbusd(3, 4, 5);
            between(k / DEPTH);
        }
        _tile_stored(0, to.sums[0][0], DEPTH);
        _tile_stored(1, to.sums[0][1], DEPTH);
        _tile_stored(2, to.sums[1][0], DEPTH);
        _tile_stored(3, to.sums[1][1], DEPTH);
    }
};
#endif

struct ByteDots {
    struct Ready {};
    static constexpr int64_t AT_ONCE = WIDTH / 2;  // tokens whose sums the registers hold

    template <typename Between>
    ANY_UNIT_INLINE void multiply(const uint8_t* tokens, int64_t depth, Block first, Block second,
                                  Meeting& to, Between between) {
        for (int64_t token = 0; token < TOKENS; token += AT_ONCE) {
            multiply_block(tokens + token * depth, depth, first.weights, to.sums[0][0] + token, to.sums[0][1] + token);
            multiply_block(tokens + token * depth, depth, second.weights, to.sums[1][0] + token, to.sums[1][1] + token);
        }
        for (int64_t step = 0; step < depth / DEPTH; ++step) between(step);
    }

  private:
    ANY_UNIT_INLINE void multiply_block(const uint8_t* tokens, int64_t depth, const int8_t* weights,
                                        int32_t (*left)[WIDTH], int32_t (*right)[WIDTH]) {
        Ints sums[AT_ONCE][2] = {};
        for (int64_t k = 0; k < depth; k += DEPTH, weights += 2 * TILE)
            for (int64_t four = 0; four < DEPTH; four += 4) {
                const Ints of_left = load_ints(weights + four * WIDTH),
                           of_right = load_ints(weights + TILE + four * WIDTH);
#pragma GCC unroll 8
                for (int64_t i = 0; i < AT_ONCE; ++i) {
                    const Words bytes = all_words(tokens + i * depth + k + four);
                    sums[i][0] = add_dots(sums[i][0], bytes, of_left);
                    sums[i][1] = add_dots(sums[i][1], bytes, of_right);
                }
            }
        for (int64_t i = 0; i < AT_ONCE; ++i) {
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
