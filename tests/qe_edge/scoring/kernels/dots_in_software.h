// Products of four bytes a lane (AVX-VNNI) with AVX2, put before library.cpp so that what is written for them can be tested on
// every processor that has it.
#pragma once
#include <immintrin.h>

#define DOTS_IN_SOFTWARE 1
// sums[i] += a[4 i + j] * b[4 i + j], j < 4, a without a sign
template <typename Ints, typename Words>
static inline Ints software_dots(Ints sums, Words a, Ints b) {
    const __m256i low = _mm256_set1_epi16(255);
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256((__m256i)a, low),
                                           _mm256_srai_epi16(_mm256_slli_epi16((__m256i)b, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16((__m256i)a, 8), _mm256_srai_epi16((__m256i)b, 8));
    return sums + (Ints)_mm256_add_epi32(even, odd);
}
