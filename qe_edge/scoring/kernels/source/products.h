// Products of uint8 activations with int8 weights.
#pragma once
#include "kernel.h"
#include "multipliers.h"

// Tokens AT_ONCE; the last ones are filled up with zeros in a copy.
template <int64_t AT_ONCE>
struct Tokens {
    const uint8_t* tokens;
    int64_t count, depth;
    uint8_t* last;  // [AT_ONCE, K]

    Tokens(const uint8_t* tokens, int64_t count, int64_t depth, uint8_t* last)
        : tokens(tokens), count(count), depth(depth), last(last) {
        const int64_t rest = count % AT_ONCE;
        __builtin_memcpy(last, tokens + (count - rest) * depth, rest * depth);
        __builtin_memset(last + rest * depth, 0, (AT_ONCE - rest) * depth);
    }
    const uint8_t* from(int64_t token) const { return token + AT_ONCE > count ? last : tokens + token * depth; }
    int64_t rows(int64_t token) const { return count - token < AT_ONCE ? count - token : AT_ONCE; }
};
constexpr int64_t MOST_AT_ONCE = 2 * WIDTH;

// Weights that are read next, fetched a few lines at a time. Those of a graph are more than caches hold.
template <int64_t CHANNELS>
struct Ahead {
    const char* weights[2];
    int64_t lines, at_once, done = 0;

    // Those of so many channels from both on, within so many calls.
    Ahead(Block first, Block second, int64_t depth, int64_t calls)
        : weights{reinterpret_cast<const char*>(first.weights), reinterpret_cast<const char*>(second.weights)},
          lines(CHANNELS * depth / LINE),
          at_once((lines + calls - 1) / calls) {}
    inline __attribute__((always_inline)) void fetch() {
        const int64_t end = done + at_once < lines ? done + at_once : lines;
        for (; done < end; ++done)
            for (const char* of : weights)
                _mm_prefetch(of + done / CHANNELS * BLOCK * DEPTH + done % CHANNELS * LINE, _MM_HINT_T1);
    }

  private:
    static constexpr int64_t LINE = 64;
};

// Multiplies `count` tokens with twice CHANNELS_AT_ONCE channels at a time, those that begin where first(channel) and
// second(channel) say, of one product or of two, from channel to channel by `width`. finish(token, channel, first, second)
// is called for the sums of every W channels of both, while the next ones are being multiplied; channel is that of the
// first ones. last: room for MOST_AT_ONCE tokens.
template <typename Multiplier, typename First, typename Second, typename Finish>
ANY_UNIT_INLINE void multiply_all(const uint8_t* tokens, int64_t count, int64_t depth, uint8_t* last, int64_t channels,
                                  int64_t width, First first, Second second, Finish finish) {
    constexpr int64_t TOKENS = Multiplier::TOKENS_AT_ONCE, CHANNELS = Multiplier::CHANNELS_AT_ONCE;
    static_assert(TOKENS <= MOST_AT_ONCE);
    if (count == 0) return;
    const Tokens<TOKENS> given(tokens, count, depth, last);
    [[maybe_unused]] const typename Multiplier::Ready ready;  // after what was written for it
    const int64_t steps = depth / DEPTH, rows_at_once = (TOKENS + steps - 1) / steps,
                  meetings_of_channel = (count + TOKENS - 1) / TOKENS;
    Meeting<Multiplier> meetings[2];
    Meeting<Multiplier>*now = meetings, *before = meetings + 1;
    int64_t rows = 0, row = 0;  // of the meeting before, and those of it that are finished
    const auto finish_rows = [&](int64_t end) __attribute__((always_inline)) {
        for (; row < end; ++row)
            for (int64_t part = 0; part < CHANNELS / static_cast<int64_t>(WIDTH); ++part)
                finish(before->token + row, before->channel + part * WIDTH, before->sums[0][part][row],
                       before->sums[1][part][row]);
    };
    for (int64_t channel = 0; channel < channels; channel += width) {
        const int64_t next = channel + width < channels ? channel + width : channel;
        Ahead<CHANNELS> ahead(first(next), second(next), depth, meetings_of_channel * steps);
        for (int64_t token = 0; token < count; token += TOKENS) {
            now->token = token;
            now->channel = channel;
            Multiplier::multiply(given.from(token), given.rows(token), depth, first(channel), second(channel), *now,
                                 [&]() __attribute__((always_inline)) {
                                     ahead.fetch();
                                     finish_rows(row + rows_at_once < rows ? row + rows_at_once : rows);
                                 });
            Meeting<Multiplier>* const finished = before;
            before = now;
            now = finished;
            rows = given.rows(token);
            row = 0;
        }
    }
    finish_rows(rows);
}

// What a product needs of its weights besides, int32: their sums of each channel, then, with Unit::PAIRS, the orders of the
// blocks.
inline int64_t count_notes(Unit unit, int64_t depth, int64_t channels) {
#ifndef __AVX512F__
    if (unit == Unit::PAIRS) return channels + channels / BLOCK * order_numbers(depth);
#endif
    return channels;
}

// tokens [.., K] uint8, weights [K, N] int8 as they are packed for the unit, notes, zero of one number, scales [N] float32,
// scale without axes, or, where a kernel takes that, for each token.
struct Product {
    Tensor tokens, weights, notes, scale, scales, zero;
    int64_t depth = 0, channels = 0, count = 0;
    int32_t* start = nullptr;  // of each channel's sum, [N]: what the tokens' zero point adds to it, subtracted
    float* steps = nullptr;    // [N]

    Product(Call& call, Unit unit, size_t first_weights, const Tensor& tokens, const Tensor& scale, const Tensor& zero,
            bool takes_token_scales = false)
        : tokens(tokens), weights(call.input(first_weights)), notes(call.input(first_weights + 1)), scale(scale),
          scales(call.input(first_weights + 2)), zero(zero) {
        depth = weights.sizes[0];
        channels = weights.sizes[1];
        call.require(tokens.axes > 0 && weights.axes == 2 && depth > 0 && channels > 0 && depth <= DEEPEST &&
                         depth % DEPTH == 0 && channels % (2 * BLOCK) == 0 && tokens.last() == depth &&
                         notes.count() == count_notes(unit, depth, channels) && scales.count() == channels &&
                         zero.count() == 1,
                     "product: sizes that do not belong together");
#ifndef __AVX512F__
        for (int64_t first = 0; call.good() && unit == Unit::PAIRS && first < channels; first += BLOCK)
            call.require(is_order(order(first), depth), "product: notes that are not of its weights");
#endif
        if (call.good()) count = tokens.count() / depth;
        call.require(scale.axes == 0 || (takes_token_scales && scale.holds(1, tokens)),
                     "product: a scale of something else");
    }
    // Those of each token, or null.
    const float* token_scales() const { return scale.axes ? scale.as<float>() : nullptr; }

    // Numbers of 4 bytes that `prepare` needs.
    int64_t scratch() const { return 2 * channels; }
    void prepare(void* room) {
        start = static_cast<int32_t*>(room);
        steps = reinterpret_cast<float*>(start + channels);
        for (int64_t n = 0; n < channels; ++n) {
            start[n] = -notes.as<int32_t>()[n] * *zero.as<uint8_t>();
            steps[n] = token_scales() ? scales.as<float>()[n] : scales.as<float>()[n] * *scale.as<float>();
        }
    }

    // Of the channels from one on, a multiple of W.
    inline __attribute__((always_inline)) Block block(int64_t channel) const {
        const int8_t* from = weights.as<int8_t>() + channel / BLOCK * BLOCK * depth + channel % BLOCK / WIDTH * TILE;
#ifdef __AVX512F__
        return {from, start + channel, nullptr};
#else
        return {from, start + channel, order(channel)};
#endif
    }
#ifndef __AVX512F__
    const int32_t* order(int64_t channel) const {
        return notes.as<int32_t>() + channels + channel / BLOCK * order_numbers(depth);
    }
#endif

    // Sums of W channels as float32.
    inline __attribute__((always_inline)) Floats to_float(int64_t channel, const int32_t sums[WIDTH]) const {
        return __builtin_convertvector(*reinterpret_cast<const LooseInts*>(sums), Floats) * load(steps + channel);
    }
};

// take(token, channel, products) for every W channels of every token.
template <typename Multiplier, typename Take>
ANY_UNIT_INLINE void multiply_product(const Product& product, uint8_t* last, Take take) {
    constexpr int64_t CHANNELS = Multiplier::CHANNELS_AT_ONCE;
    multiply_all<Multiplier>(
        product.tokens.as<uint8_t>(), product.count, product.depth, last, product.channels, 2 * CHANNELS,
        [&](int64_t channel) { return product.block(channel); },
        [&](int64_t channel) { return product.block(channel + CHANNELS); },
        [&](int64_t token, int64_t channel, const int32_t* first, const int32_t* second)
            __attribute__((always_inline)) {
            take(token, channel, product.to_float(channel, first));
            take(token, channel + CHANNELS, product.to_float(channel + CHANNELS, second));
        });
}
