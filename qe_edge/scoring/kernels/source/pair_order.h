// The order in which `BytePairs` takes the weights of a block, for processors whose only products of bytes add two
// neighbouring ones up in 16 bits (AVX2), which 255 * 128 fits into.
//
// Four inputs of a channel, two pairs, are a group. Of two groups the products are added up in 16 bits too, where no channel of the
// block has weights of one sign in two pairs that come to more than 128; that spares one of six operations. What a pair itself is too
// large for, is multiplied in two halves. So every sum is exact.
#pragma once
#include "scratch.h"
#include "weights.h"

constexpr int64_t GROUP = 4;                   // inputs
constexpr int64_t LARGEST = 128;               // sum of the weights of one sign in 16 bits
constexpr int64_t LANES = BLOCK * GROUP / 2;   // pairs of a group
constexpr int64_t GROUP_BYTES = BLOCK * GROUP;  // of weights

// How a block's order is written: how many times two groups are taken together, how many groups are taken alone; then,
// 16 bits each, the first inputs of all groups: those taken together side by side, those alone, and those in halves.
constexpr int64_t order_numbers(int64_t depth) { return 2 + depth / GROUP / 2; }

// Whether an order names no group beyond the inputs that there are.
inline bool is_order(const int32_t* order, int64_t depth) {
    const int64_t groups = depth / GROUP, together = order[0], alone = order[1];
    const uint16_t* inputs = reinterpret_cast<const uint16_t*>(order + 2);
    int last = 0;
    for (int64_t i = 0; i < groups; ++i) last = inputs[i] > last ? inputs[i] : last;
    return together >= 0 && alone >= 0 && 2 * together + alone <= groups && last <= depth - GROUP;
}

// What the weights of a group come to in each pair, those of each sign by themselves; 255 for more.
struct PairSums {
    __m256i positive, negative;

    // From [2W, 4].
    explicit PairSums(const __m256i weights[2]) {
        const __m256i nothing = _mm256_setzero_si256();
        positive = add_pairs(_mm256_max_epi8(weights[0], nothing), _mm256_max_epi8(weights[1], nothing));
        negative = add_pairs(_mm256_sub_epi8(nothing, _mm256_min_epi8(weights[0], nothing)),
                             _mm256_sub_epi8(nothing, _mm256_min_epi8(weights[1], nothing)));
    }
    int largest() const {
        uint8_t sums[LANES];
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), _mm256_max_epu8(positive, negative));
        int found = 0;
        for (const uint8_t one : sums) found = one > found ? one : found;
        return found;
    }
    bool fits(const PairSums& other) const {
        const __m256i most = _mm256_set1_epi8(static_cast<char>(LARGEST)),
                      above = _mm256_or_si256(_mm256_subs_epu8(_mm256_adds_epu8(positive, other.positive), most),
                                              _mm256_subs_epu8(_mm256_adds_epu8(negative, other.negative), most));
        return _mm256_testz_si256(above, above);
    }

  private:
    static __m256i add_pairs(__m256i first, __m256i second) {
        const __m256i ones = _mm256_set1_epi8(1);
        return _mm256_packus_epi16(_mm256_maddubs_epi16(first, ones), _mm256_maddubs_epi16(second, ones));
    }
};

// The order of a block's groups, from their sums: the largest with the smallest that it fits together with.
class Order {
  public:
    Order(const PairSums* sums, int64_t groups, uint16_t* by_size, uint16_t* numbers) {
        int64_t starts[257] = {};
        for (int64_t group = 0; group < groups; ++group) ++starts[256 - sums[group].largest()];
        for (int64_t i = 1; i < 257; ++i) starts[i] += starts[i - 1];
        halved = starts[255 - LARGEST];
        for (int64_t group = groups; group--;) by_size[--starts[256 - sums[group].largest()]] = static_cast<uint16_t>(group);
        int64_t first = halved;
        // by_size[from the first one that is not halved on]: those left over move to the front
        int64_t end = groups;
        uint16_t* to = numbers;
        for (; first < end; ++first) {
            const int64_t most = end - 1 - first < TRIES ? end - 1 - first : TRIES;
            int64_t tried = 1;
            while (tried <= most && !sums[by_size[first]].fits(sums[by_size[end - tried]])) ++tried;
            if (tried > most) {
                by_size[halved + alone++] = by_size[first];
                continue;
            }
            *to++ = by_size[first];
            *to++ = by_size[end - tried];
            ++together;
            for (; tried > 1; --tried) by_size[end - tried] = by_size[end - tried + 1];
            --end;
        }
        for (int64_t i = 0; i < alone; ++i) *to++ = by_size[halved + i];
        for (int64_t i = 0; i < halved; ++i) *to++ = by_size[i];
    }
    int64_t together = 0, alone = 0, halved = 0;

  private:
    static constexpr int64_t TRIES = 32;  // of one group
};

// Four rows of 2W weights as [2W, 4].
INLINE void interleave(const int8_t* rows, int64_t channels, __m256i to[2]) {
    __m128i row[4];
    for (int64_t i = 0; i < GROUP; ++i) row[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + i * channels));
    const __m128i low = _mm_unpacklo_epi8(row[0], row[1]), high = _mm_unpackhi_epi8(row[0], row[1]),
                  low2 = _mm_unpacklo_epi8(row[2], row[3]), high2 = _mm_unpackhi_epi8(row[2], row[3]);
    to[0] = _mm256_set_m128i(_mm_unpackhi_epi16(low, low2), _mm_unpacklo_epi16(low, low2));
    to[1] = _mm256_set_m128i(_mm_unpackhi_epi16(high, high2), _mm_unpacklo_epi16(high, high2));
}

// Weights [K, N] as [N / 2W, K / 4, 2W, 4], the groups of each block in an order of their own: order
// [N / 2W, `order_numbers`]. False if there is not enough memory.
static bool pack_pairs(const int8_t* weights, int64_t depth, int64_t channels, int8_t* packed, int32_t* order) {
    const int64_t groups = depth / GROUP;
    __m256i* of_block = static_cast<__m256i*>(Scratch::take(groups * (GROUP_BYTES + sizeof(PairSums) + sizeof(uint16_t))));
    if (of_block == nullptr) return false;
    PairSums* sums = reinterpret_cast<PairSums*>(of_block + 2 * groups);
    uint16_t* by_size = reinterpret_cast<uint16_t*>(sums + groups);
    for (int64_t block = 0; block < channels / BLOCK; ++block, order += order_numbers(depth)) {
        for (int64_t group = 0; group < groups; ++group) {
            interleave(weights + group * GROUP * channels + block * BLOCK, channels, of_block + 2 * group);
            sums[group] = PairSums(of_block + 2 * group);
        }
        uint16_t* inputs = reinterpret_cast<uint16_t*>(order + 2);
        const Order found(sums, groups, by_size, inputs);
        order[0] = static_cast<int32_t>(found.together);
        order[1] = static_cast<int32_t>(found.alone);
        for (int64_t place = 0; place < groups; ++place, packed += GROUP_BYTES) {
            __builtin_memcpy(packed, of_block + 2 * inputs[place], GROUP_BYTES);
            inputs[place] = static_cast<uint16_t>(inputs[place] * GROUP);
        }
    }
    return true;
}
