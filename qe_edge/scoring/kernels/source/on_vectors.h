// What multipliers without tiles have in common.
#pragma once
#include "units.h"
#include "weights.h"

// Own::multiply_block takes IN_REGISTERS tokens, as many as registers hold sums of. A block of weights is used for all tokens
// of a meeting before the other one is: the first cache does not hold both.
template <typename Own>
struct OnVectors {
    struct Ready {};

    template <typename Between>
    ANY_UNIT_INLINE void multiply(const uint8_t* tokens, int64_t rows, int64_t depth, Block first, Block second,
                                  Meeting<Own>& to, Between between) {
        constexpr int64_t AT_ONCE = Own::IN_REGISTERS;
        static_assert(Own::TOKENS_AT_ONCE % AT_ONCE == 0 && Own::CHANNELS_AT_ONCE == BLOCK);
        for (int64_t token = 0; token < rows; token += AT_ONCE)
            Own::multiply_block(tokens + token * depth, depth, first, to.sums[0][0] + token, to.sums[0][1] + token);
        for (int64_t token = 0; token < rows; token += AT_ONCE)
            Own::multiply_block(tokens + token * depth, depth, second, to.sums[1][0] + token, to.sums[1][1] + token);
        for (int64_t k = 0; k < depth; k += DEPTH) between();
    }
};
