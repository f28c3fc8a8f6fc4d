// SwigluQuantize of two products of the same tokens. Inputs: tokens, scale and zero of both, the scale one number or one
// for each token; weights, notes and scales of the gate, and of what it lets through; floor, levels and zeros as there.
#pragma once
#include "products.h"
#include "quantise.h"
#include "scratch.h"

struct GatedQuantize {
    static constexpr const char* NAME = "GatedQuantize";
    static constexpr ElementType INPUTS[] = {UINT8, FLOAT32, UINT8,   INT8,    INT32,   FLOAT32,
                                             INT8,  INT32,   FLOAT32, FLOAT32, FLOAT32, UINT8};
    static constexpr ElementType OUTPUTS[] = {UINT8, FLOAT32};

    Unit unit = Unit::NONE;

    Status* start(const KernelInfo*) {
        unit = processor::for_bytes();
        return unit == Unit::NONE ? refuse("GatedQuantize: no products of int8 on this processor") : nullptr;
    }

    void run(Call& call) const {
        const Tensor tokens = call.input(0), scale = call.input(1), zero = call.input(2);
        Product gate(call, unit, 3, tokens, scale, zero, true), up(call, unit, 6, tokens, scale, zero, true);
        const Tensor floor = call.input(9), levels = call.input(10), zeros = call.input(11);
        call.require(gate.channels == up.channels && gate.depth == up.depth && floor.count() == 1 &&
                         levels.count() == 1 && zeros.count() == 1,
                     "GatedQuantize: sizes that do not belong together");
        if (!call.good()) return;
        int64_t sizes[MOST_AXES], of_scales[MOST_AXES];
        for (size_t i = 0; i < tokens.axes; ++i) sizes[i] = of_scales[i] = tokens.sizes[i];
        sizes[tokens.axes - 1] = gate.channels, of_scales[tokens.axes - 1] = 1;
        uint8_t* quantised = call.output<uint8_t>(0, sizes, tokens.axes);
        float* scales = call.output<float>(1, of_scales, tokens.axes);
        if (!call.good() || gate.count == 0) return;
        // a core's second cache holds the values of so many tokens, where there are tiles a larger one than elsewhere
        const int64_t at_once = even_parts(gate.count, unit == Unit::TILES ? 192 : 128, MOST_AT_ONCE);
        // values of at_once tokens, what the products need, the last tokens
        const int64_t kept = at_once * gate.channels, numbers = kept + gate.scratch() + up.scratch();
        float* values = static_cast<float*>(Scratch::take(numbers * sizeof(float) + MOST_AT_ONCE * gate.depth));
        if (values == nullptr) return call.fail("GatedQuantize: failed to allocate memory");
        uint8_t* last = reinterpret_cast<uint8_t*>(values + numbers);
        gate.prepare(values + kept);
        up.prepare(values + kept + gate.scratch());
        for (int64_t first = 0; first < gate.count; first += at_once) {
            const int64_t count = gate.count - first < at_once ? gate.count - first : at_once;
            const uint8_t* from = tokens.as<uint8_t>() + first * gate.depth;
            if (const float* token_scales = gate.token_scales()) {
                const auto of_token = [&](int64_t token) { return token_scales[first + token]; };
                multiply_both(gate, up, from, count, last, values, of_token);
            } else {
                multiply_both(gate, up, from, count, last, values, [](int64_t) { return 1.f; });
            }
            quantise_tokens(values, gate.channels, count, *floor.as<float>(), *levels.as<float>(),
                            *zeros.as<uint8_t>(), quantised + first * gate.channels, scales + first);
        }
    }

    // The largest of parts as even as multiples of `by` allow, none more than `most`.
    static int64_t even_parts(int64_t all, int64_t most, int64_t by) {
        const int64_t parts = (all + most - 1) / most;
        return (all + parts * by - 1) / (parts * by) * by;
    }

    template <typename Scale>
    void multiply_both(const Product& gate, const Product& up, const uint8_t* tokens, int64_t count, uint8_t* last,
                       float* values, Scale scale) const {
        unit == SPECIAL ? multiply_on<Special>(gate, up, tokens, count, last, values, scale)
                        : multiply_on<General>(gate, up, tokens, count, last, values, scale);
    }

    template <typename Multiplier, typename Scale>
    ANY_UNIT __attribute__((noinline)) static void multiply_on(const Product& gate, const Product& up,
                                                               const uint8_t* tokens, int64_t count, uint8_t* last,
                                                               float* values, Scale scale) {
        multiply_all<Multiplier>(
            tokens, count, gate.depth, last, gate.channels, Multiplier::CHANNELS_AT_ONCE,
            [&](int64_t channel) { return gate.block(channel); },
            [&](int64_t channel) { return up.block(channel); },
            [&](int64_t token, int64_t channel, const int32_t* of_gate, const int32_t* of_up)
                __attribute__((always_inline)) {
                const float one = scale(token);
                store(values + channel * count + token * WIDTH,
                      gated(gate.to_float(channel, of_gate) * one, up.to_float(channel, of_up) * one));
            });
    }

    // values [N / W, tokens, W], quantised [tokens, N], scales [tokens].
    __attribute__((noinline)) static void quantise_tokens(const float* values, int64_t width, int64_t count, float floor,
                                                          float levels, uint8_t zero, uint8_t* quantised,
                                                          float* scales) {
        constexpr int64_t LINE = 2 * BLOCK;  // channels whose bytes are written together
        int64_t found = 0;
        for (; found + TOGETHER <= count; found += TOGETHER)
            find_steps<TOGETHER>(values + found * WIDTH, width, count, floor, levels, scales + found);
        for (; found < count; ++found)
            find_steps<1>(values + found * WIDTH, width, count, floor, levels, scales + found);
        for (int64_t first = 0; first < width; first += LINE)
            for (int64_t token = 0; token < count; ++token)
                quantise(
                    LINE,
                    [&](int64_t i) __attribute__((always_inline)) {
                        return load(values + (first + i) * count + token * WIDTH);
                    },
                    1.f / scales[token], zero, quantised + token * width + first);
    }

    // The steps of some of `count` tokens.
    template <int64_t TOKENS>
    INLINE void find_steps(const float* values, int64_t width, int64_t count, float floor, float levels,
                           float* scales) {
        Floats magnitudes[TOKENS] = {};
        for (int64_t i = 0; i < width; i += WIDTH)
#pragma GCC unroll 8
            for (int64_t token = 0; token < TOKENS; ++token)
                magnitudes[token] = larger(magnitudes[token], magnitude(load(values + i * count + token * WIDTH)));
        for (int64_t token = 0; token < TOKENS; ++token) scales[token] = step(magnitudes[token], floor, levels);
    }
    static constexpr int64_t TOGETHER = 8;  // tokens whose largest magnitudes registers hold
};
