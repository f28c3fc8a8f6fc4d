// Products of uint8 activations with int8 weights.
#pragma once
#include "kernel.h"
#include "multipliers.h"

constexpr int64_t DEEPEST = 1 << 16;  // inputs whose products stay within 32 bits

// Tokens of a tile at a time; those of the last tile are filled up with zeros in a copy.
struct TokenTiles {
    const uint8_t* tokens;
    int64_t count, depth;
    uint8_t* last;  // room for TOKENS

    TokenTiles(const uint8_t* tokens, int64_t count, int64_t depth, uint8_t* last)
        : tokens(tokens), count(count), depth(depth), last(last) {
        const int64_t rest = count % TOKENS;
        __builtin_memcpy(last, tokens + (count - rest) * depth, rest * depth);
        __builtin_memset(last + rest * depth, 0, (TOKENS - rest) * depth);
    }
    const uint8_t* from(int64_t token) const { return token + TOKENS > count ? last : tokens + token * depth; }
    int64_t rows(int64_t token) const { return count - token < TOKENS ? count - token : TOKENS; }
};

// Weights that are read next, fetched a few lines at a time. Those of a graph are more than caches hold.
struct Ahead {
    const char* weights[2];
    int64_t bytes, at_once, done = 0;

    // Two blocks of weights, within so many calls.
    Ahead(Block first, Block second, int64_t depth, int64_t calls)
        : weights{reinterpret_cast<const char*>(first.weights), reinterpret_cast<const char*>(second.weights)},
          bytes(BLOCK * depth),
          at_once((bytes / LINE + calls - 1) / calls * LINE) {}
    inline __attribute__((always_inline)) void fetch() {
        const int64_t end = done + at_once < bytes ? done + at_once : bytes;
        for (; done < end; done += LINE)
            for (const char* of : weights) _mm_prefetch(of + done, _MM_HINT_T1);
    }

  private:
    static constexpr int64_t LINE = 64;
};

// Multiplies all tokens with blocks of weights, two at a time, from channel to channel by `width`: those that begin where
// first(channel) and second(channel) say. finish(meeting, row) is called for every row of every meeting, while the next
// one is being multiplied.
template <typename Multiplier, typename First, typename Second, typename Finish>
ANY_UNIT_INLINE void multiply_all(const TokenTiles& tiles, int64_t channels, int64_t width, First first, Second second,
                                  Finish finish) {
    if (tiles.count == 0) return;
    [[maybe_unused]] const typename Multiplier::Ready ready;
    const int64_t steps = tiles.depth / DEPTH, rows_at_once = (TOKENS + steps - 1) / steps,
                  meetings_of_channel = (tiles.count + TOKENS - 1) / TOKENS;
    Meeting meetings[2];
    Meeting *now = meetings, *before = meetings + 1;
    int64_t rows = 0;  // of the meeting before
    for (int64_t channel = 0; channel < channels; channel += width) {
        const int64_t next = channel + width < channels ? channel + width : channel;
        Ahead ahead(first(next), second(next), tiles.depth, meetings_of_channel * steps);
        for (int64_t token = 0; token < tiles.count; token += TOKENS) {
            now->token = token;
            now->channel = channel;
            Multiplier::multiply(
                tiles.from(token), tiles.depth, first(channel), second(channel), *now,
                [&](int64_t step) __attribute__((always_inline)) {
                    ahead.fetch();
                    const int64_t end = (step + 1) * rows_at_once < rows ? (step + 1) * rows_at_once : rows;
                    for (int64_t row = step * rows_at_once; row < end; ++row) finish(*before, row);
                });
            Meeting* const done = now;
            now = before;
            before = done;
            rows = tiles.rows(token);
        }
    }
    for (int64_t row = 0; row < rows; ++row) finish(*before, row);
}

// What a product needs of its weights besides, int32: their sums of each channel, then, with Unit::PAIRS, the orders of the
// blocks.
inline int64_t count_notes(Unit unit, int64_t depth, int64_t channels) {
#ifndef __AVX512F__
    if (unit == Unit::PAIRS) return channels + channels / BLOCK * order_numbers(depth);
#endif
    return channels;
}

// tokens [.., K] uint8, weights [K, N] int8 as they are packed for the unit, notes, scale and zero of one number, scales
// [N] float32.
struct Product {
    Tensor tokens, weights, notes, scale, scales, zero;
    int64_t depth = 0, channels = 0, count = 0;
    int32_t* offsets = nullptr;  // [N]
    float* steps = nullptr;      // [N]

    Product(Call& call, Unit unit, size_t first_weights, const Tensor& tokens, const Tensor& scale, const Tensor& zero)
        : tokens(tokens), weights(call.input(first_weights)), notes(call.input(first_weights + 1)), scale(scale),
          scales(call.input(first_weights + 2)), zero(zero) {
        depth = weights.sizes[0];
        channels = weights.sizes[1];
        call.require(tokens.axes > 0 && weights.axes == 2 && depth > 0 && channels > 0 && depth <= DEEPEST &&
                         depth % DEPTH == 0 && channels % (2 * BLOCK) == 0 && tokens.last() == depth &&
                         notes.count() == count_notes(unit, depth, channels) && scales.count() == channels && scale.count() == 1 && zero.count() == 1,
                     "product: sizes that do not belong together");
#ifndef __AVX512F__
        for (int64_t first = 0; call.good() && unit == Unit::PAIRS && first < channels; first += BLOCK)
            call.require(is_order(block(first).order, depth), "product: notes that are not of its weights");
#endif
        if (call.good()) count = tokens.count() / depth;
    }
    // Numbers of 4 bytes that `prepare` needs.
    int64_t scratch() const { return 2 * channels; }
    void prepare(void* room) {
        offsets = static_cast<int32_t*>(room);
        steps = reinterpret_cast<float*>(offsets + channels);
        for (int64_t n = 0; n < channels; ++n) {
            offsets[n] = notes.as<int32_t>()[n] * *zero.as<uint8_t>();
            steps[n] = scales.as<float>()[n] * *scale.as<float>();
        }
    }

    // The block that begins with this channel.
    inline __attribute__((always_inline)) Block block(int64_t channel) const {
#ifdef __AVX512F__
        return {weights.as<int8_t>() + channel * depth, nullptr};
#else
        return {weights.as<int8_t>() + channel * depth,
                notes.as<int32_t>() + channels + channel / BLOCK * order_numbers(depth)};
#endif
    }

    // Products of a vector of channels as float32: (product - zero * weights' sum) * scale.
    inline __attribute__((always_inline)) Floats to_float(int64_t channel, const int32_t products[WIDTH]) const {
        const Ints moved = *reinterpret_cast<const LooseInts*>(products) -
                           *reinterpret_cast<const LooseInts*>(offsets + channel);
        return __builtin_convertvector(moved, Floats) * load(steps + channel);
    }
};
