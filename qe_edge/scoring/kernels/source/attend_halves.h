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

struct HalfTiles {
    using Ready = FullTiles;

    // weights [32, 16] = 32 keys [D] times 16 queries, word [D / 2, 16].
    ANY_UNIT_INLINE void multiply_keys(const uint16_t* keys, const uint32_t* queries, int64_t head, float* weights) {
        finished();
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t part = 0; part < head; part += PAIRS) {
            _tile_loadd(4, queries + part / 2 * WIDTH, 64);
            _tile_loadd(5, keys + part, head * 2);
            _tile_loadd(6, keys + WIDTH * head + part, head * 2);
            _tile_dpbf16ps(0, 5, 4);
            _tile_dpbf16ps(1, 6, 4);
        }
        _tile_stored(0, weights, 64);
        _tile_stored(1, weights + WIDTH * WIDTH, 64);
    }

    // mixed [16, 32 of D] = weights of 16 queries and 32 keys a block, bf16 [16, 32] at the start of its [32, 16]
    // numbers, times 32 numbers of each value.
    ANY_UNIT_INLINE void mix(const float* weights, const uint32_t* values, int64_t blocks, int64_t head, float* mixed) {
        finished();
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t block = 0; block < blocks; ++block, values += WIDTH * head, weights += PAIRS * WIDTH) {
            _tile_loadd(4, weights, 64);
            _tile_loadd(5, values, head * 4);
            _tile_loadd(6, values + WIDTH, head * 4);
            _tile_dpbf16ps(0, 4, 5);
            _tile_dpbf16ps(1, 4, 6);
        }
        _tile_stored(0, mixed, head * 4);
        _tile_stored(1, mixed + WIDTH, head * 4);
    }
};

struct HalfDots {
    struct Ready {};

    ANY_UNIT_INLINE void multiply_keys(const uint16_t* keys, const uint32_t* queries, int64_t head, float* weights) {
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

    ANY_UNIT_INLINE void mix(const float* weights, const uint32_t* values, int64_t blocks, int64_t head, float* mixed) {
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

// mixed [16, D] = softmax(queries [16, D] times keys) times values, each query with the first keys that it sees.
// T, the keys of a group, is a multiple of 32 whose rest is finite. weights: scratch [T, 16].
template <typename Multiplier>
ANY_UNIT_INLINE void attend_queries(const float* queries, HalfGroup group, int64_t head, int32_t most, int32_t least,
                               Ints seen, float* weights, float* mixed) {
    alignas(64) uint32_t turned[WIDTH * WIDEST_HEAD / 2];  // [D / 2, 16]: pairs of numbers of each query
    for (int64_t part = 0; part < head; part += PAIRS) {
        Floats rows[WIDTH];
        for (size_t lane = 0; lane < WIDTH; ++lane) {
            const float* from = queries + lane * head + part;
            rows[lane] = (Floats)_mm512_cvtne2ps_pbh((__m512)load(from + WIDTH), (__m512)load(from));
        }
        transpose(rows);
        for (size_t i = 0; i < WIDTH; ++i) store_words(turned + (part / 2 + i) * WIDTH, (Words)rows[i]);
    }
    const int64_t blocks = (most + PAIRS - 1) / PAIRS;
    for (int64_t block = 0; block < blocks; ++block)
        Multiplier::multiply_keys(group.keys + block * PAIRS * head, turned, head, weights + block * PAIRS * WIDTH);
    const Floats share = 1.f / softmax(weights, most, least, seen);
    for (int64_t j = most; j < blocks * PAIRS; ++j) store(weights + j * WIDTH, Floats{});
    for (int64_t block = 0; block < blocks; ++block) {  // into bf16 [16, 32], in place
        Floats rows[WIDTH];
        float* from = weights + block * PAIRS * WIDTH;
        for (size_t pair = 0; pair < WIDTH; ++pair)
            rows[pair] = (Floats)(bf16(load(from + 2 * pair * WIDTH) * share) |
                                  bf16(load(from + (2 * pair + 1) * WIDTH) * share) << 16);
        transpose(rows);
        for (size_t lane = 0; lane < WIDTH; ++lane) store(from + lane * WIDTH, rows[lane]);
    }
    for (int64_t part = 0; part < head; part += 2 * WIDTH)
        Multiplier::mix(weights, group.values + part, blocks, head, mixed + part);
}
