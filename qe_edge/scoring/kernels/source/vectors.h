// As many numbers at a time as a register holds: 16 with AVX-512, 8 with AVX2. In the vector extension of GCC and Clang.
#pragma once
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __AVX512F__
constexpr size_t WIDTH = 16;
#else
constexpr size_t WIDTH = 8;
#endif
constexpr size_t REGISTER = 4 * WIDTH;  // bytes
typedef float Floats __attribute__((vector_size(REGISTER)));
typedef int32_t Ints __attribute__((vector_size(REGISTER)));
typedef int32_t LooseInts __attribute__((vector_size(REGISTER), aligned(4), may_alias));
typedef float LooseFloats __attribute__((vector_size(REGISTER), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE Floats load(const float* from) { return *reinterpret_cast<const LooseFloats*>(from); }
INLINE void store(float* to, Floats values) { *reinterpret_cast<LooseFloats*>(to) = values; }
INLINE Floats all(float value) { return Floats{} + value; }
INLINE Floats magnitude(Floats a) { return (Floats)((Ints)a & 0x7fffffff); }

// One number of all: the first half with the second one, the first quarter with the second one, and so on.
template <typename Join>
INLINE float folded(Floats a, Join join) {
#ifdef __AVX512F__
    const __m512d bits = (__m512d)a;
    const __m256 half = join((__m256)_mm512_castpd512_pd256(bits), (__m256)_mm512_extractf64x4_pd(bits, 1));
#else
    const __m256 half = (__m256)a;
#endif
    const __m128 quarter = join(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    const __m128 two = join(quarter, _mm_movehl_ps(quarter, quarter));
    return join(two, _mm_shuffle_ps(two, two, 1))[0];
}
INLINE float sum(Floats a) {
    return folded(a, [](auto x, auto y) __attribute__((always_inline)) { return x + y; });
}
INLINE float largest(Floats a) {
    return folded(a, [](auto x, auto y) __attribute__((always_inline)) { return x > y ? x : y; });
}

#ifdef __AVX512F__

// a > b ? a : b, and a < b ? a : b.
INLINE Floats larger(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE Floats smaller(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }

INLINE Floats nearest(Floats a) { return (Floats)_mm512_roundscale_ps((__m512)a, 8); }
// An exponent, drawn in to where `scaled` is right and e^a has long been 0 or infinity.
INLINE Floats drawn_in(Floats a) { return a; }
// a * 2^power for whole numbers; 0 and infinity where float32 ends.
INLINE Floats scaled(Floats a, Floats power) { return (Floats)_mm512_scalef_ps((__m512)a, (__m512)power); }

// 1 / a to a relative 1e-7, for numbers whose inverse float32 holds; without the slow division.
INLINE Floats inverse(Floats a) {
    const Floats about = (Floats)_mm512_rcp14_ps((__m512)a);
    return about * (2.f - a * about);
}

// The nearest whole numbers, the even one of two; the smallest one for what is no number.
INLINE Ints whole(Floats a) { return (Ints)_mm512_cvtps_epi32((__m512)a); }

// Held within 0 and 255.
INLINE void store_bytes(uint8_t* to, Ints values) {
    const __m512i positive = _mm512_max_epi32((__m512i)values, __m512i{});
    *reinterpret_cast<__m128i_u*>(to) = _mm512_cvtusepi32_epi8(positive);
}
INLINE void store_bytes(uint8_t* to, Ints a, Ints b, Ints c, Ints d) {
    const __m512i words = _mm512_packs_epi32((__m512i)a, (__m512i)b), more = _mm512_packs_epi32((__m512i)c, (__m512i)d);
    const __m512i mixed = _mm512_packus_epi16(words, more);  // of a, b, c, d in turn, four at a time
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    *reinterpret_cast<__m512i_u*>(to) = _mm512_permutexvar_epi32(order, mixed);
}

#else

INLINE Floats larger(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE Floats smaller(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)a, (__m256)b); }

INLINE Floats nearest(Floats a) { return (Floats)_mm256_round_ps((__m256)a, 8); }
INLINE Floats drawn_in(Floats a) { return smaller(all(175.f), larger(all(-175.f), a)); }  // what is no number stays
INLINE Floats scaled(Floats a, Floats power) {
    const Ints twos = __builtin_convertvector(power, Ints), half = twos >> 1;
    return a * (Floats)((half + 127) << 23) * (Floats)((twos - half + 127) << 23);
}

// Divided, since what these processors have instead differs from one maker to the other.
INLINE Floats inverse(Floats a) { return 1.f / a; }

INLINE Ints whole(Floats a) { return (Ints)_mm256_cvtps_epi32((__m256)a); }

INLINE void store_bytes(uint8_t* to, Ints values) {
    const __m128i low = _mm256_castsi256_si128((__m256i)values), high = _mm256_extracti128_si256((__m256i)values, 1);
    const __m128i words = _mm_packs_epi32(low, high);
    _mm_storeu_si64(to, _mm_packus_epi16(words, words));
}
INLINE void store_bytes(uint8_t* to, Ints a, Ints b, Ints c, Ints d) {
    const __m256i words = _mm256_packs_epi32((__m256i)a, (__m256i)b), more = _mm256_packs_epi32((__m256i)c, (__m256i)d);
    const __m256i mixed = _mm256_packus_epi16(words, more);
    *reinterpret_cast<__m256i_u*>(to) = _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

#endif

// e^a to a relative 4e-6, and 4e-8 more for each unit of |a|; 0 and infinity where float32 ends.
INLINE Floats exponential(Floats a) {
    const Floats twos = drawn_in(a) * 1.44269504f, power = nearest(twos);
    const Floats rest = twos - power;  // 2^rest, between -1/2 and 1/2
    Floats value = 1.33336e-3f * rest + 9.61817e-3f;
    value = value * rest + 5.550411e-2f;
    value = value * rest + 2.4022651e-1f;
    value = value * rest + 6.9314718e-1f;
    value = value * rest + 1.f;
    return scaled(value, power);
}

// rows[i][j] becomes rows[j][i].
INLINE void transpose(Floats rows[WIDTH]) {
#define EXCHANGE(DISTANCE, ...)                                                    \
    for (size_t i = 0; i < WIDTH; ++i)                                             \
        if (!(i & DISTANCE)) {                                                     \
            const Ints low = {__VA_ARGS__};                                        \
            const Floats a = rows[i], b = rows[i + DISTANCE];                      \
            rows[i] = __builtin_shuffle(a, b, low);                                \
            rows[i + DISTANCE] = __builtin_shuffle(a, b, low + DISTANCE);          \
        }
#ifdef __AVX512F__
    EXCHANGE(1, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
    EXCHANGE(2, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
    EXCHANGE(4, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
    EXCHANGE(8, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#else
    EXCHANGE(1, 0, 8, 2, 10, 4, 12, 6, 14)
    EXCHANGE(2, 0, 1, 8, 9, 4, 5, 12, 13)
    EXCHANGE(4, 0, 1, 2, 3, 8, 9, 10, 11)
#endif
#undef EXCHANGE
}
