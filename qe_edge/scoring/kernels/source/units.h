// What of a processor multiplies matrices of int8 and of bf16 for the kernels.
#pragma once
#include <immintrin.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vectors.h"

#ifdef __AVX512F__
// For functions that run only where a processor has what they ask for: which `Unit` that is, a template's argument says.
// The compiler may use AVX512-VNNI in them by itself, which every such processor has.
#define ANY_UNIT __attribute__((target("amx-tile,amx-bf16,amx-int8,avx512bf16,avx512vnni")))
#else
#define ANY_UNIT
#endif
#define ANY_UNIT_INLINE static inline __attribute__((always_inline)) ANY_UNIT

constexpr int64_t PAIRS = 2 * WIDTH;  // numbers in bf16 of a vector, and of a row of a tile
typedef uint32_t Words __attribute__((vector_size(REGISTER)));
typedef uint32_t LooseWords __attribute__((vector_size(REGISTER), aligned(4), may_alias));

INLINE void store_words(uint32_t* to, Words words) { *reinterpret_cast<LooseWords*>(to) = words; }
INLINE Words load_words(const uint32_t* from) { return *reinterpret_cast<const LooseWords*>(from); }
INLINE Ints load_ints(const void* from) { return *reinterpret_cast<const LooseInts*>(from); }
INLINE Words all_words(const void* from) {
    uint32_t word;
    __builtin_memcpy(&word, from, sizeof word);
    return Words{} + word;
}

// sums + the products of four bytes, `a` without signs, a lane.
ANY_UNIT_INLINE Ints add_dots(Ints sums, Words a, Ints b) {
#ifdef __AVX512F__
    return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
#elif defined DOTS_IN_SOFTWARE  // in tests
    return software_dots(sums, a, b);
#else  // written out, so that the compiler does not use it where a processor has none
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(a), "xm"(b));
    return sums;
#endif
}

enum class Unit {
    NONE,   // float32 alone
    DOTS,   // products of two pairs or four bytes a lane (AVX512-BF16; AVX512-VNNI, AVX-VNNI)
    TILES,  // of 16 rows of 64 bytes (AMX)
    PAIRS,  // of two bytes, added up in 16 bits (AVX2)
};

namespace processor {
struct Facts {
    unsigned a, b, c, d;
};
inline Facts ask(unsigned part) {
    Facts found;
    __asm__("cpuid" : "=a"(found.a), "=b"(found.b), "=c"(found.c), "=d"(found.d) : "a"(7), "c"(part));
    return found;
}
inline bool chosen(const char* name) {
    const char* found = getenv("QE_EDGE_KERNELS");
    return found && __builtin_strcmp(found, name) == 0;
}
#ifdef __AVX512F__
inline bool has_byte_dots() { return ask(0).c >> 11 & 1; }
inline bool has_half_dots() { return ask(1).a >> 5 & 1; }
#ifdef TILES_IN_SOFTWARE  // in tests
inline bool has_tiles() { return true; }
#else
inline bool has_tiles() {  // Linux gives them to those who ask
    constexpr long ASK = 0x1023 /* ARCH_REQ_XCOMP_PERM */, TILE_DATA = 18;
    const unsigned d = ask(0).d;  // amx-bf16, amx-tile, amx-int8
    return (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1) && has_half_dots() && has_byte_dots() &&
           syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
}
#endif
inline Unit best(bool dots) {
    if (chosen("float32") || !dots) return Unit::NONE;
    return !chosen("vectors") && has_tiles() ? Unit::TILES : Unit::DOTS;
}
inline Unit for_bytes() { return best(has_byte_dots()); }
inline Unit for_halves() { return best(has_half_dots()); }
#else
#ifdef DOTS_IN_SOFTWARE
inline bool has_byte_dots() { return true; }
#else
inline bool has_byte_dots() { return ask(1).a >> 4 & 1; }
#endif
inline Unit for_bytes() {
    if (chosen("float32")) return Unit::NONE;
    return !chosen("pairs") && has_byte_dots() ? Unit::DOTS : Unit::PAIRS;
}
inline Unit for_halves() { return Unit::NONE; }
#endif
}  // namespace processor

#ifdef __AVX512F__

typedef uint16_t Halves __attribute__((vector_size(32)));
typedef uint16_t LooseHalves __attribute__((vector_size(32), aligned(2), may_alias));

// The nearest numbers in bf16, in the low half of each word.
ANY_UNIT_INLINE Words bf16(Floats values) {
    return __builtin_convertvector((Halves)_mm512_cvtneps_pbh((__m512)values), Words);
}

// What was written before is in memory: GCC's functions for tiles do not say that they read it.
INLINE void finished() { __asm__ volatile("" ::: "memory"); }

// All tiles of their full size while it lives, in this thread; afterwards as before.
class FullTiles {
  public:
    ANY_UNIT FullTiles() {
        alignas(64) uint8_t full[64] = {1};  // palette
        for (int tile = 0; tile < 8; ++tile) {
            full[16 + 2 * tile] = 64;  // bytes of a row
            full[48 + tile] = 16;      // rows
        }
        finished();
        _tile_storeconfig(before_);
        _tile_loadconfig(full);
    }
    ANY_UNIT ~FullTiles() {
        if (before_[0])
            _tile_loadconfig(before_);
        else
            _tile_release();
    }

  private:
    alignas(64) uint8_t before_[64];
};

#endif
