// The order in which `BytePairs` takes the weights of a block, for processors whose only products of bytes add two
// neighbouring ones up in 16 bits (AVX2), which 255 * 128 fits into.
//
// Four inputs of a channel, two pairs, are a group. Of two groups the products are added up in 16 bits too, where no channel of the
// block has weights of one sign in two pairs that come to more than 128; that spares one of three operations. What a pair itself is too
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

// What the weights of a group come to in each pair, each sign by itself; 255 for more.
struct PairSums {
    uint8_t of_sign[2][LANES];

    // From [4, N], the weights of four inputs.
    PairSums(const int8_t* weights, int64_t channels) {
        for (int64_t n = 0; n < BLOCK; ++n)
            for (int64_t pair = 0; pair < 2; ++pair) {
                int sums[2] = {};
                for (int64_t i = 0; i < 2; ++i) {
                    const int weight = weights[(2 * pair + i) * channels + n];
                    sums[weight < 0] += weight < 0 ? -weight : weight;
                }
                for (int64_t sign = 0; sign < 2; ++sign)
                    of_sign[sign][2 * n + pair] = static_cast<uint8_t>(sums[sign] < 255 ? sums[sign] : 255);
            }
    }
    int largest() const {
        int found = 0;
        for (const auto& sums : of_sign)
            for (const uint8_t one : sums) found = one > found ? one : found;
        return found;
    }
    bool fit(const PairSums& other) const {
        int found = 0;
        for (int64_t sign = 0; sign < 2; ++sign)
            for (int64_t lane = 0; lane < LANES; ++lane) {
                const int both = of_sign[sign][lane] + other.of_sign[sign][lane];
                found = both > found ? both : found;
            }
        return found <= LARGEST;
    }
};

// The order of a block's groups, from their sums: the largest with the smallest that it fits together with.
class Order {
  public:
    Order(const PairSums* sums, int64_t groups, uint16_t* by_size, uint16_t* numbers) {
        int64_t starts[257] = {};
        for (int64_t group = 0; group < groups; ++group) ++starts[256 - sums[group].largest()];
        for (int64_t i = 1; i < 257; ++i) starts[i] += starts[i - 1];
        for (int64_t group = groups; group--;) by_size[--starts[256 - sums[group].largest()]] = static_cast<uint16_t>(group);
        int64_t first = 0;
        while (first < groups && sums[by_size[first]].largest() > LARGEST) ++first;
        halved = first;
        // by_size[from the first one that is not halved on]: those left over move to the front
        int64_t end = groups;
        uint16_t* to = numbers;
        for (; first < end; ++first) {
            const int64_t most = end - 1 - first < TRIES ? end - 1 - first : TRIES;
            int64_t tried = 1;
            while (tried <= most && !sums[by_size[first]].fit(sums[by_size[end - tried]])) ++tried;
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
        for (int64_t i = 0; i < groups; ++i) numbers[i] = static_cast<uint16_t>(numbers[i] * GROUP);
    }
    int64_t together = 0, alone = 0, halved = 0;

  private:
    static constexpr int64_t TRIES = 32;  // of one group
};

// Weights [K, N] as [N / 2W, K / 4, 2, W, 4], the groups of each block in an order of their own: order [N / 2W, `order_numbers`]. False if
// there is not enough memory.
static bool pack_pairs(const int8_t* weights, int64_t depth, int64_t channels, int8_t* packed, int32_t* order) {
    const int64_t groups = depth / GROUP;
    char* room = static_cast<char*>(Scratch::take(groups * (sizeof(PairSums) + sizeof(uint16_t))));
    if (room == nullptr) return false;
    PairSums* sums = reinterpret_cast<PairSums*>(room);
    uint16_t* by_size = reinterpret_cast<uint16_t*>(sums + groups);
    for (int64_t block = 0; block < channels / BLOCK; ++block, order += order_numbers(depth)) {
        const int8_t* of_block = weights + block * BLOCK;
        for (int64_t group = 0; group < groups; ++group) sums[group] = PairSums(of_block + group * GROUP * channels, channels);
        uint16_t* inputs = reinterpret_cast<uint16_t*>(order + 2);
        const Order found(sums, groups, by_size, inputs);
        order[0] = static_cast<int32_t>(found.together);
        order[1] = static_cast<int32_t>(found.alone);
        for (int64_t place = 0; place < groups; ++place)
            for (int64_t n = 0; n < BLOCK; ++n)
                for (int64_t i = 0; i < GROUP; ++i) *packed++ = of_block[(inputs[place] + i) * channels + n];
    }
    return true;
}
