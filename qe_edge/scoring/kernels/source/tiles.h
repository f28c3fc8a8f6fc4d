// Products of matrices with the tile unit (AMX) of newer Intel processors: 16 rows of 64 bytes a tile.
#pragma once
#include <immintrin.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vectors.h"

#define TILES __attribute__((target("amx-tile,amx-bf16,amx-int8,avx512bf16")))
#define TILES_INLINE static inline __attribute__((always_inline, target("amx-tile,amx-bf16,amx-int8,avx512bf16")))

constexpr int64_t PAIRS = 32;  // numbers in bf16 of a tile's row
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef uint16_t LooseHalves __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint32_t LooseWords __attribute__((vector_size(64), aligned(4), may_alias));

INLINE void store_words(uint32_t* to, Words words) { *reinterpret_cast<LooseWords*>(to) = words; }
INLINE Words load_words(const uint32_t* from) { return *reinterpret_cast<const LooseWords*>(from); }

// The nearest numbers in bf16, in the low half of each word.
TILES_INLINE Words bf16(Floats values) {
    return __builtin_convertvector((Halves)_mm512_cvtneps_pbh((__m512)values), Words);
}

// Whether processor and system let this process use tiles. Linux gives them to those who ask.
inline bool has_tiles() {
#ifdef TILES_IN_SOFTWARE  // in tests
    return true;
#else
    constexpr long ASK = 0x1023 /* ARCH_REQ_XCOMP_PERM */, TILE_DATA = 18;
    unsigned a, b, c, d;
    __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
    const bool all_types = (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1);  // amx-bf16, amx-tile, amx-int8
    __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(1));
    return all_types && (a >> 5 & 1) /* avx512-bf16 */ && syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
#endif
}
// The same, unless the user wants to do without.
inline bool tiles_usable() {
    const char* chosen = getenv("QE_EDGE_KERNELS");
    return !(chosen && __builtin_strcmp(chosen, "vectors") == 0) && has_tiles();
}

// All tiles of their full size while it lives, in this thread; afterwards as before.
class FullTiles {
  public:
    TILES FullTiles() {
        alignas(64) uint8_t full[64] = {1};  // palette
        for (int tile = 0; tile < 8; ++tile) {
            full[16 + 2 * tile] = 64;  // bytes of a row
            full[48 + tile] = 16;      // rows
        }
        _tile_storeconfig(before_);
        _tile_loadconfig(full);
    }
    TILES ~FullTiles() {
        if (before_[0])
            _tile_loadconfig(before_);
        else
            _tile_release();
    }

  private:
    alignas(64) uint8_t before_[64];
};
