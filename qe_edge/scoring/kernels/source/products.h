// Products of uint8 activations with int8 weights, 16 tokens and 64 channels at a time.
#pragma once
#include "kernel.h"
#include "units.h"

constexpr int64_t DEPTH = 64;         // inputs that a tile holds of a token or a channel
constexpr int64_t DEEPEST = 1 << 16;  // inputs whose products stay within 32 bits
constexpr int64_t TOKENS = WIDTH;     // of a tile
constexpr int64_t BLOCK = 2 * WIDTH;  // channels whose weights lie together
constexpr int64_t TILE = 1024;        // numbers of a tile

// Weights [K, N] in the order in which they are used: [N / 32, K / 64, 2, 16, 16, 4], so that a tile holds 16 channels and
// 64 inputs, and its rows, each a vector, four inputs of every channel side by side. sums [N]: of the weights of a channel.
static void pack(const int8_t* weights, int64_t depth, int64_t channels, int8_t* packed, int32_t* sums) {
    for (int64_t n = 0; n < channels; ++n) sums[n] = 0;
    for (int64_t k = 0; k < depth; ++k)
        for (int64_t n = 0; n < channels; ++n) sums[n] += weights[k * channels + n];
    for (int64_t block = 0; block < channels / BLOCK; ++block)
        for (int64_t k = 0; k < depth; k += 4) {
            const int8_t* from = weights + k * channels + block * BLOCK;
            int8_t* to = packed + block * BLOCK * depth + k / DEPTH * 2 * TILE + k % DEPTH / 4 * DEPTH;
            for (int64_t half = 0; half < 2; ++half, from += WIDTH, to += TILE)
                for (size_t n = 0; n < WIDTH; ++n)
                    for (int64_t i = 0; i < 4; ++i) to[4 * n + i] = from[i * channels + n];
        }
}

// See `qe_edge_expand`.
static void expand(const uint8_t* fours, const float* divisors, const int8_t* zeros, int64_t depth, int64_t channels,
                   int8_t* weights) {
    constexpr int64_t TOGETHER = 32;  // inputs with the same divisors
    for (int64_t k = 0; k < depth; ++k)
        for (int64_t n = 0; n < channels; ++n) {
            const int64_t of_block = k / TOGETHER * channels + n, place = k * channels + n;
            const float four = static_cast<float>(fours[place / 2] >> place % 2 * 4 & 15);
            const float value = __builtin_rintf(four / divisors[of_block]) + static_cast<float>(zeros[of_block]);
            weights[place] = static_cast<int8_t>(value > -128.f ? (value < 127.f ? value : 127.f) : -128.f);
        }
}

// Where 16 tokens meet 64 channels, in two blocks of weights: what was multiplied there.
struct Meeting {
    int64_t token, channel;
    alignas(64) int32_t sums[2][2][TOKENS][WIDTH];  // of the halves of the first block, and of the second
};

struct ByteTiles {
    using Ready = FullTiles;

    // The sums of a meeting. The tile unit works on its own meanwhile: `between(step)` is called after what each 64
    // inputs need was handed to it.
    template <typename Between>
    ANY_UNIT_INLINE void multiply(const uint8_t* tokens, int64_t depth, const int8_t* first, const int8_t* second,
                                  Meeting& to, Between between) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t k = 0; k < depth; k += DEPTH, first += 2 * TILE, second += 2 * TILE) {
            _tile_loadd(4, tokens + k, depth);
            _tile_loadd(5, first, DEPTH);
            _tile_dpbusd(0, 4, 5);
            _tile_loadd(6, first + TILE, DEPTH);
            _tile_dpbusd(1, 4, 6);
            _tile_loadd(7, second, DEPTH);
            _tile_dpbusd(2, 4, 7);
            _tile_loadd(5, second + TILE, DEPTH);
            _tile_dpbusd(3, 4, 5);
            between(k / DEPTH);
        }
        _tile_stored(0, to.sums[0][0], DEPTH);
        _tile_stored(1, to.sums[0][1], DEPTH);
        _tile_stored(2, to.sums[1][0], DEPTH);
        _tile_stored(3, to.sums[1][1], DEPTH);
    }
};

struct ByteDots {
    struct Ready {};
    static constexpr int64_t AT_ONCE = 8;  // tokens whose sums the registers hold

    template <typename Between>
    ANY_UNIT_INLINE void multiply(const uint8_t* tokens, int64_t depth, const int8_t* first, const int8_t* second,
                                  Meeting& to, Between between) {
        for (int64_t token = 0; token < TOKENS; token += AT_ONCE) {
            multiply_block(tokens + token * depth, depth, first, to.sums[0][0] + token, to.sums[0][1] + token);
            multiply_block(tokens + token * depth, depth, second, to.sums[1][0] + token, to.sums[1][1] + token);
        }
        for (int64_t step = 0; step < depth / DEPTH; ++step) between(step);
    }

  private:
    ANY_UNIT_INLINE void multiply_block(const uint8_t* tokens, int64_t depth, const int8_t* weights,
                                        int32_t (*left)[WIDTH], int32_t (*right)[WIDTH]) {
        __m512i sums[AT_ONCE][2] = {};
        for (int64_t k = 0; k < depth; k += DEPTH, weights += 2 * TILE)
            for (int64_t four = 0; four < DEPTH; four += 4) {
                const __m512i of_left = _mm512_loadu_si512(weights + four * WIDTH),
                              of_right = _mm512_loadu_si512(weights + TILE + four * WIDTH);
#pragma GCC unroll 8
                for (int64_t i = 0; i < AT_ONCE; ++i) {
                    const __m512i bytes = (__m512i)all_words(tokens + i * depth + k + four);
                    sums[i][0] = _mm512_dpbusd_epi32(sums[i][0], bytes, of_left);
                    sums[i][1] = _mm512_dpbusd_epi32(sums[i][1], bytes, of_right);
                }
            }
        for (int64_t i = 0; i < AT_ONCE; ++i) {
            _mm512_store_si512(left[i], sums[i][0]);
            _mm512_store_si512(right[i], sums[i][1]);
        }
    }
};

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
    Ahead(const int8_t* first, const int8_t* second, int64_t depth, int64_t calls)
        : weights{reinterpret_cast<const char*>(first), reinterpret_cast<const char*>(second)}, bytes(BLOCK * depth),
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

// tokens [.., K] uint8, weights [K, N] int8 as `pack` orders them, sums [N] int32, scale and zero of one number, scales
// [N] float32.
struct Product {
    Tensor tokens, weights, sums, scale, scales, zero;
    int64_t depth = 0, channels = 0, count = 0;
    int32_t* offsets = nullptr;  // [N]
    float* steps = nullptr;      // [N]

    Product(Call& call, size_t first_weights, const Tensor& tokens, const Tensor& scale, const Tensor& zero)
        : tokens(tokens), weights(call.input(first_weights)), sums(call.input(first_weights + 1)), scale(scale),
          scales(call.input(first_weights + 2)), zero(zero) {
        depth = weights.sizes[0];
        channels = weights.sizes[1];
        call.require(tokens.axes > 0 && weights.axes == 2 && depth > 0 && channels > 0 && depth <= DEEPEST &&
                         depth % DEPTH == 0 && channels % (2 * BLOCK) == 0 && tokens.last() == depth && sums.count() == channels &&
                         scales.count() == channels && scale.count() == 1 && zero.count() == 1,
                     "product: sizes that do not belong together");
        if (call.good()) count = tokens.count() / depth;
    }
    // Numbers of 4 bytes that `prepare` needs.
    int64_t scratch() const { return 2 * channels; }
    void prepare(void* room) {
        offsets = static_cast<int32_t*>(room);
        steps = reinterpret_cast<float*>(offsets + channels);
        for (int64_t n = 0; n < channels; ++n) {
            offsets[n] = sums.as<int32_t>()[n] * *zero.as<uint8_t>();
            steps[n] = scales.as<float>()[n] * *scale.as<float>();
        }
    }

    // Products of 16 channels as float32: (product - zero * weights' sum) * scale.
    inline __attribute__((always_inline)) Floats to_float(int64_t channel, const int32_t products[WIDTH]) const {
        const Ints moved = *reinterpret_cast<const LooseInts*>(products) -
                           *reinterpret_cast<const LooseInts*>(offsets + channel);
        return __builtin_convertvector(moved, Floats) * load(steps + channel);
    }
};
