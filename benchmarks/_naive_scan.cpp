// The selective scan as anyone would write it first: the baseline of selective_scan.py.
// Arrays are C-contiguous, shaped as in mmfusion.layers.selective_scan, for one image.
#include <cmath>
#include <cstddef>

extern "C" void naive_scan(const float* u, const float* step, const float* a, const float* b,
                           const float* c, const float* d, float* y, float* state,
                           std::size_t steps, std::size_t directions, std::size_t channels,
                           std::size_t states) {
  for (std::size_t i = 0; i < directions * channels * states; ++i) state[i] = 0.0f;
  for (std::size_t t = 0; t < steps; ++t) {
    for (std::size_t k = 0; k < directions; ++k) {
      const float* bt = b + (t * directions + k) * states;
      const float* ct = c + (t * directions + k) * states;
      for (std::size_t g = k * channels; g < (k + 1) * channels; ++g) {
        const std::size_t at = t * directions * channels + g;
        float sum = d[g] * u[at];
        for (std::size_t n = 0; n < states; ++n) {
          float& h = state[g * states + n];
          h = std::exp(step[at] * a[g * states + n]) * h + step[at] * u[at] * bt[n];
          sum += ct[n] * h;
        }
        y[at] = sum;
      }
    }
  }
}
