// Attention of one group of heads: queries, keys, weights and values in bf16, sums and softmax in float32.
#pragma once
#include "softmax.h"
#include "units.h"

// Keys [T, D] as they are; values in pairs of keys: word [T / 2, D] holds those of an even key and of the next one.
struct HalfGroup {
    uint16_t* keys;
    uint32_t* values;
};

// Keys and values from position `first` on, `stride` numbers from one to the next.
ANY_UNIT_INLINE void put_keys(const float* keys, int64_t count, int64_t stride, int64_t head, int64_t first,
                              HalfGroup to) {
    for (int64_t j = 0; j < count; ++j)
        for (int64_t i = 0; i < head; i += WIDTH)
            *reinterpret_cast<LooseHalves*>(to.keys + (first + j) * head + i) =
                (Halves)_mm512_cvtneps_pbh((__m512)load(keys + j * stride + i));
}
ANY_UNIT_INLINE void put_values(const float* values, int64_t count, int64_t stride, int64_t head, int64_t first,
                                HalfGroup to) {
    for (int64_t j = 0; j < count; ++j)
        for (int64_t i = 0; i < head; i += WIDTH) {
            uint32_t* words = to.values + (first + j) / 2 * head + i;
            const Words value = bf16((load(values + j * stride + i)));
            store_words(words, (first + j) % 2 ? (load_words(words) & 0xffff) | value << 16 : value);
        }
}

// VECTORS of queries are multiplied at once. Their weights [VECTORS][T, 16], `apart` numbers from one vector to the next.
struct HalfTiles {
    using Ready = FullTiles;
    static constexpr int64_t VECTORS = 2;

    // weights [2][32, 16] = 32 keys [D] times 2 * 16 queries, word [2][D / 2, 16].
    ANY_UNIT_INLINE void multiply_keys(const uint16_t* keys, const uint32_t* queries, int64_t head, float* weights,
                                       int64_t apart) {
        finished();
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t part = 0; part < head; part += PAIRS) {
            _tile_loadd(4, queries + part / 2 * WIDTH, 64);
            _tile_loadd(5, keys + part, head * 2);
            _tile_dpbf16ps(0, 5, 4);
            _tile_loadd(6, keys + WIDTH * head + part, head * 2);
            _tile_dpbf16ps(1, 6, 4);
            _tile_loadd(7, queries + (head + part) / 2 * WIDTH, 64);
            _tile_dpbf16ps(2, 5, 7);
            _tile_dpbf16ps(3, 6, 7);
        }
        _tile_stored(0, weights, 64);
        _tile_stored(1, weights + WIDTH * WIDTH, 64);
        _tile_stored(2, weights + apart, 64);
        _tile_stored(3, weights + apart + WIDTH * WIDTH, 64);
    }

    // mixed [2 * 16, 32 of D] = weights of 2 * 16 queries and 32 keys a block, bf16 [16, 32] at the start of its [32, 16]
    // numbers, times 32 numbers of each value.
    ANY_UNIT_INLINE void mix(const float* weights, int64_t apart, const uint32_t* values, int64_t blocks, int64_t head,
                             float* mixed) {
        finished();
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t block = 0; block < blocks; ++block, values += WIDTH * head, weights += PAIRS * WIDTH) {
            _tile_loadd(4, weights, 64);
            _tile_loadd(5, values, head * 4);
            _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(6, values + WIDTH, head * 4);
            _tile_dpbf16ps(1, 4, 6);
            _tile_loadd(7, weights + apart, 64);
            _tile_dpbf16ps(2, 7, 5);
            _tile_dpbf16ps(3, 7, 6);
        }
        _tile_stored(0, mixed, head * 4);
        _tile_stored(1, mixed + WIDTH, head * 4);
        _tile_stored(2, mixed + WIDTH * head, head * 4);
        _tile_stored(3, mixed + WIDTH * head + WIDTH, head * 4);
    }
};

struct HalfDots {
    struct Ready {};
    static constexpr int64_t VECTORS = 1;

    ANY_UNIT_INLINE void multiply_keys(const uint16_t* keys, const uint32_t* queries, int64_t head, float* weights,
                                       int64_t) {
        for (int64_t first = 0; first < PAIRS; first += WIDTH, keys += WIDTH * head, weights += WIDTH * WIDTH) {
            Floats sums[WIDTH] = {};
            for (int64_t part = 0; part < head / 2; ++part) {
                const Words pairs = load_words(queries + part * WIDTH);
#pragma GCC unroll 16
                for (size_t j = 0; j < WIDTH; ++j) sums[j] = add(sums[j], all_words(keys + j * head + 2 * part), pairs);
            }
#pragma GCC unroll 16
            for (size_t j = 0; j < WIDTH; ++j) store(weights + j * WIDTH, sums[j]);
        }
    }

    ANY_UNIT_INLINE void mix(const float* weights, int64_t, const uint32_t* values, int64_t blocks, int64_t head,
                             float* mixed) {
        constexpr size_t AT_ONCE = 8;
        for (size_t first = 0; first < WIDTH; first += AT_ONCE) {
            Floats sums[AT_ONCE][2] = {};
            for (int64_t pair = 0; pair < blocks * static_cast<int64_t>(WIDTH); ++pair) {
                const Words left = load_words(values + pair * head), right = load_words(values + pair * head + WIDTH);
                const float* at = weights + pair / WIDTH * PAIRS * WIDTH + first * WIDTH + pair % WIDTH;
#pragma GCC unroll 8
                for (size_t i = 0; i < AT_ONCE; ++i) {
                    const Words weight = all_words(at + i * WIDTH);
                    sums[i][0] = add(sums[i][0], weight, left);
                    sums[i][1] = add(sums[i][1], weight, right);
                }
            }
            for (size_t i = 0; i < AT_ONCE; ++i) {
                store(mixed + (first + i) * head, sums[i][0]);
                store(mixed + (first + i) * head + WIDTH, sums[i][1]);
            }
        }
    }

  private:
    ANY_UNIT_INLINE Floats add(Floats sums, Words a, Words b) {
        return (Floats)_mm512_dpbf16_ps((__m512)sums, (__m512bh)a, (__m512bh)b);
    }
};

// Two vectors in bf16, number by number: that of `even` in the low half of a word.
ANY_UNIT_INLINE Floats paired(Floats even, Floats odd) {
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                           5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return (Floats)_mm512_permutexvar_epi16(order, both);
}

// Weights of a vector of queries from their products with keys: softmax, then bf16 [16, 32] at the start of each block.
ANY_UNIT_INLINE void weigh(float* weights, int64_t blocks, const Lanes& lanes) {
    const Floats share = 1.f / softmax(weights, lanes);
    for (int64_t j = lanes.most; j < blocks * PAIRS; ++j) store(weights + j * WIDTH, Floats{});
    for (int64_t block = 0; block < blocks; ++block) {
        Floats rows[WIDTH];
        float* from = weights + block * PAIRS * WIDTH;
        for (size_t pair = 0; pair < WIDTH; ++pair)
            rows[pair] = paired(load(from + 2 * pair * WIDTH) * share, load(from + (2 * pair + 1) * WIDTH) * share);
        transpose(rows);
        for (size_t lane = 0; lane < WIDTH; ++lane) store(from + lane * WIDTH, rows[lane]);
    }
}

// mixed [VECTORS * 16, D] = softmax(queries [VECTORS * 16, D] times keys) times values, each query with the first keys
// that it sees. T, the keys of a group, is a multiple of 32 whose rest is finite. weights: scratch [VECTORS][T, 16].
template <typename Multiplier>
ANY_UNIT_INLINE void attend_queries(const float* queries, HalfGroup group, int64_t head, const Lanes* lanes,
                                    float* weights, int64_t apart, float* mixed) {
    constexpr int64_t VECTORS = Multiplier::VECTORS;
    // [VECTORS][D / 2, 16]: pairs of numbers of each query
    alignas(64) uint32_t turned[VECTORS * WIDTH * WIDEST_HEAD / 2];
    int32_t most = 0;
    for (int64_t vector = 0; vector < VECTORS; ++vector) {
        most = lanes[vector].most > most ? lanes[vector].most : most;
        for (int64_t part = 0; part < head; part += PAIRS) {
            Floats rows[WIDTH];
            for (size_t lane = 0; lane < WIDTH; ++lane) {
                const float* from = queries + (vector * WIDTH + lane) * head + part;
                rows[lane] = (Floats)_mm512_cvtne2ps_pbh((__m512)load(from + WIDTH), (__m512)load(from));
            }
            transpose(rows);
            for (size_t i = 0; i < WIDTH; ++i)
                store_words(turned + ((vector * head + part) / 2 + i) * WIDTH, (Words)rows[i]);
        }
    }
    const int64_t blocks = (most + PAIRS - 1) / PAIRS;
    for (int64_t block = 0; block < blocks; ++block)
        Multiplier::multiply_keys(group.keys + block * PAIRS * head, turned, head, weights + block * PAIRS * WIDTH,
                                  apart);
    for (int64_t vector = 0; vector < VECTORS; ++vector) weigh(weights + vector * apart, blocks, lanes[vector]);
    for (int64_t part = 0; part < head; part += 2 * WIDTH)
        Multiplier::mix(weights, apart, group.values + part, blocks, head, mixed + part);
}
