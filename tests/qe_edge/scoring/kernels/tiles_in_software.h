// The tile unit (AMX) in plain C++, put before library.cpp so that what is written for it can be tested on every
// processor with AVX-512: 8 tiles of 16 rows of 64 bytes, and the instructions on them that the kernels use.
#pragma once
#include <immintrin.h>
#include <stdint.h>

#define TILES_IN_SOFTWARE 1
struct SoftwareTile {
    alignas(64) uint8_t bytes[16][64];
};
static thread_local SoftwareTile software_tiles[8];

static inline void software_load(int tile, const void* from, int64_t stride) {
    for (int64_t row = 0; row < 16; ++row)
        __builtin_memcpy(software_tiles[tile].bytes[row], static_cast<const char*>(from) + row * stride, 64);
}
static inline void software_store(int tile, void* to, int64_t stride) {
    for (int64_t row = 0; row < 16; ++row)
        __builtin_memcpy(static_cast<char*>(to) + row * stride, software_tiles[tile].bytes[row], 64);
}
// sums[row][column] += a[row][4 k + i] * b[k][4 column + i], i < 4, a without a sign
__attribute__((target("avx512vnni"))) static inline void software_dpbusd(int sums, int a, int b) {
    auto* to = reinterpret_cast<__m512i*>(software_tiles[sums].bytes);
    const auto* right = reinterpret_cast<const __m512i*>(software_tiles[b].bytes);
    for (int row = 0; row < 16; ++row)
        for (int k = 0; k < 16; ++k) {
            int32_t left;
            __builtin_memcpy(&left, &software_tiles[a].bytes[row][4 * k], 4);
            to[row] = _mm512_dpbusd_epi32(to[row], _mm512_set1_epi32(left), right[k]);
        }
}
// sums[row][column] += a[row][2 k + i] * b[k][2 column + i], i < 2, a and b in bf16
__attribute__((target("avx512bf16"))) static inline void software_dpbf16ps(int sums, int a, int b) {
    auto* to = reinterpret_cast<__m512*>(software_tiles[sums].bytes);
    const auto* right = reinterpret_cast<const __m512bh*>(software_tiles[b].bytes);
    for (int row = 0; row < 16; ++row)
        for (int k = 0; k < 16; ++k) {
            int32_t left;
            __builtin_memcpy(&left, &software_tiles[a].bytes[row][4 * k], 4);
            to[row] = _mm512_dpbf16_ps(to[row], (__m512bh)_mm512_set1_epi32(left), right[k]);
        }
}

#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#undef _tile_storeconfig
#undef _tile_loadconfig
#undef _tile_release
#define _tile_zero(tile) ((void)(software_tiles[tile] = {}))
#define _tile_loadd software_load
#define _tile_stored software_store
#define _tile_dpbusd software_dpbusd
#define _tile_dpbf16ps software_dpbf16ps
#define _tile_storeconfig(to) __builtin_memset(to, 0, 64)
#define _tile_loadconfig(from) ((void)(from))
#define _tile_release() ((void)0)
