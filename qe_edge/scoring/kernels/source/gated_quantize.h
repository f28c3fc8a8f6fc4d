// SwigluQuantize of two products of the same tokens. Inputs: tokens, scale and zero of both; weights, notes and scales of
// the gate, and of what it lets through; floor, levels and zeros as there.
#pragma once
#include "products.h"
#include "quantise.h"
#include "scratch.h"

struct GatedQuantize {
    static constexpr const char* NAME = "GatedQuantize";
    static constexpr ElementType INPUTS[] = {UINT8, FLOAT32, UINT8,   INT8,    INT32,   FLOAT32,
                                             INT8,  INT32,   FLOAT32, FLOAT32, FLOAT32, UINT8};
    static constexpr ElementType OUTPUTS[] = {UINT8, FLOAT32};
    static constexpr int64_t AT_ONCE = 128;  // tokens whose values a core's cache holds

    Unit unit = Unit::NONE;

    Status* start(const KernelInfo*) {
        unit = processor::for_bytes();
        return unit == Unit::NONE ? refuse("GatedQuantize: no products of int8 on this processor") : nullptr;
    }

    void run(Call& call) const {
        const Tensor tokens = call.input(0), scale = call.input(1), zero = call.input(2);
        Product gate(call, unit, 3, tokens, scale, zero), up(call, unit, 6, tokens, scale, zero);
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
        if (!call.good()) return;
        // values [AT_ONCE, N], largest magnitudes [AT_ONCE, W], what the products need, the last tokens
        const int64_t kept = AT_ONCE * (gate.channels + WIDTH), numbers = kept + gate.scratch() + up.scratch();
        float* values = static_cast<float*>(Scratch::take(numbers * sizeof(float) + TOKENS * gate.depth));
        if (values == nullptr) return call.fail("GatedQuantize: failed to allocate memory");
        float* magnitudes = values + AT_ONCE * gate.channels;
        gate.prepare(values + kept);
        up.prepare(values + kept + gate.scratch());
        for (int64_t first = 0; first < gate.count; first += AT_ONCE) {
            const int64_t count = gate.count - first < AT_ONCE ? gate.count - first : AT_ONCE;
            __builtin_memset(magnitudes, 0, count * WIDTH * sizeof(float));
            const TokenTiles tiles(tokens.as<uint8_t>() + first * gate.depth, count, gate.depth,
                                   reinterpret_cast<uint8_t*>(values + numbers));
            unit == SPECIAL ? multiply_both<Special>(gate, up, tiles, values, magnitudes)
                            : multiply_both<General>(gate, up, tiles, values, magnitudes);
            for (int64_t token = 0; token < count; ++token)
                scales[first + token] = quantise_token(
                    values + token * gate.channels, gate.channels, load(magnitudes + token * WIDTH), *floor.as<float>(),
                    *levels.as<float>(), all(*zeros.as<uint8_t>()), quantised + (first + token) * gate.channels);
        }
    }

    template <typename Multiplier>
    ANY_UNIT __attribute__((noinline)) static void multiply_both(const Product& gate, const Product& up,
                                                                 const TokenTiles& tiles, float* values,
                                                                 float* magnitudes) {
        multiply_all<Multiplier>(
            tiles, gate.channels, BLOCK, [&](int64_t channel) { return gate.block(channel); },
            [&](int64_t channel) { return up.block(channel); },
            [&](const Meeting& met, int64_t row) __attribute__((always_inline)) {
                float* largest_so_far = magnitudes + (met.token + row) * WIDTH;
                Floats top = load(largest_so_far);
                for (int64_t half = 0; half < 2; ++half) {
                    const int64_t channel = met.channel + half * WIDTH;
                    const Floats product = gated(gate.to_float(channel, met.sums[0][half][row]),
                                                 up.to_float(channel, met.sums[1][half][row]));
                    store(values + (met.token + row) * gate.channels + channel, product);
                    top = larger(top, magnitude(product));
                }
                store(largest_so_far, top);
            });
    }
};
