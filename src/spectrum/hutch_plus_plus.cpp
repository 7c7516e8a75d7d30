#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <vector>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/spectrum/trace.h"
#include "vector_blocks.h"

namespace hesspect {
namespace {

constexpr std::int64_t kFirstThird = 4;
/// With fewer samples the interval rests on the mean of a few ‖P A P z‖², and is made wider as Student's would be.
constexpr std::int64_t kFewSamples = 20;

// Q spans A S, P = I − QQᵀ, and of each sample z the vector y = P A P z is kept. When Q gets rows N and P becomes P',
//   P' A P' z = P' (y − A N (Nᵀ z)),
// since N is orthogonal to Q: earlier samples take part in the smaller remainder without products of their own.
class HutchPlusPlus : public SketchingEstimator {
 public:
  HutchPlusPlus(LinearOperator& op, const TraceMethodOptions& options, const std::function<void()>& on_product)
      : SketchingEstimator(op, options, on_product), y_(op.shard().chunk, op.options()) {}

  void round(std::int64_t third) {
    const std::int64_t known = q_.rows();
    sketch(third);
    project(known);
    sample(third);
    finish();
  }

  /// Collective.
  TraceEstimate estimate() const {
    TraceEstimate trace =
        trace_estimate(captured_, samples_, {.rtol = options_.rtol, .confidence = options_.confidence});
    if (trace.samples < kFewSamples)
      trace.half_width *= student_quantile(options_.confidence, std::max<std::int64_t>(1, trace.samples / 2)) /
                          normal_quantile(options_.confidence);
    return finished(std::move(trace), "hutch++");
  }

 private:
  /// Q takes in the products with `count` new random vectors.
  void sketch(std::int64_t count) {
    for_blocks(count, [&](std::int64_t, std::int64_t size) {
      extend_basis(apply(random_vectors(probes_, size)));
      probes_ += static_cast<std::uint64_t>(size);
    });
  }

  /// tr QᵀAQ of the rows from `known` on, and what they take from the samples so far.
  void project(std::int64_t known) {
    const std::vector<at::Tensor> fresh = q_.tail(known);
    const std::size_t width = static_cast<std::size_t>(q_.rows() - known);
    std::vector<double> components;  // [samples][width]: Nᵀ z
    for_blocks(y_.rows(), [&](std::int64_t begin, std::int64_t count) {
      const std::vector<double> sums = op_.comm().sum(dots_block(fresh, probes(begin, count)));
      const std::vector<double> own = without_norms(sums, static_cast<std::size_t>(count));
      components.insert(components.end(), own.begin(), own.end());
    });
    for_blocks(q_.rows() - known, [&](std::int64_t first, std::int64_t size) {
      const std::vector<at::Tensor> x = q_.vectors(known + first, size);
      std::vector<at::Tensor> images;
      for (const at::Tensor& image : apply(x)) images.push_back(image.unsqueeze(0));
      std::vector<double> diagonal;
      for (std::size_t i = 0; i < x.size(); ++i) diagonal.push_back(dot_product(x[i], images[i].squeeze(0)));
      for (const double one : op_.comm().sum(std::move(diagonal))) captured_ += one;
      require_finite(captured_);
      for_blocks(y_.rows(), [&](std::int64_t begin, std::int64_t count) {
        std::vector<at::Tensor> y = y_.vectors(begin, count);
        std::vector<double> c;
        for (std::int64_t k = begin; k < begin + count; ++k) {
          const auto own = components.begin() + k * static_cast<std::ptrdiff_t>(width) + first;
          c.insert(c.end(), own, own + size);
        }
        subtract_block(images, c, y);
      });
    });
  }

  /// y = A P z of `count` new random vectors.
  void sample(std::int64_t count) {
    agree(op_.comm(), [&] { y_.reserve(y_.rows() + count); });
    for_blocks(count, [&](std::int64_t, std::int64_t size) {
      std::vector<at::Tensor> z = random_vectors(probes_, size);
      for (std::int64_t i = 0; i < size; ++i) samples_.push_back({static_cast<std::int64_t>(probes_++), 0, 0, {}});
      project_out(z);
      for (const at::Tensor& product : apply(z)) y_.append().copy_(product);
    });
  }

  /// y := P y for all samples, and what they tell of the remainder.
  void finish() {
    for_blocks(y_.rows(), [&](std::int64_t begin, std::int64_t count) {
      std::vector<at::Tensor> y = y_.vectors(begin, count);
      project_out(y);
      const std::vector<at::Tensor> z = probes(begin, count);
      std::vector<double> sums;
      for (std::size_t i = 0; i < y.size(); ++i) {
        const at::Tensor row[1] = {z[i].unsqueeze(0)};
        for (const double sum : dots(row, y[i])) sums.push_back(sum);
      }
      sums = op_.comm().sum(std::move(sums));
      for (std::size_t i = 0; i < y.size(); ++i) {
        require_finite(sums[2 * i + 1]);
        DeflatedSample& sample = samples_[static_cast<std::size_t>(begin) + i];
        sample.quadratic_form = sums[2 * i];
        sample.product_norm_sq = sums[2 * i + 1];
      }
    });
  }

  /// z of samples [begin, begin + count).
  std::vector<at::Tensor> probes(std::int64_t begin, std::int64_t count) const {
    std::vector<at::Tensor> z;
    for (std::int64_t i = begin; i < begin + count; ++i)
      z.push_back(random_vector(static_cast<std::uint64_t>(samples_[static_cast<std::size_t>(i)].probe)));
    return z;
  }

  /// w := (I − QQᵀ) w
  void project_out(std::vector<at::Tensor>& w) {
    if (q_.rows() == 0) return;
    const std::vector<at::Tensor> q = q_.head(q_.rows());
    const std::vector<double> sums = op_.comm().sum(dots_block(q, w));
    subtract_block(q, without_norms(sums, w.size()), w);
  }

  Basis y_;
  std::vector<DeflatedSample> samples_;  // probe: numbered from first_probe
  std::uint64_t probes_ = 0;
  double captured_ = 0;
};

}  // namespace

TraceEstimate hutch_plus_plus(LinearOperator& op, const TraceMethodOptions& options,
                              const std::function<void()>& on_product) {
  const at::NoGradGuard no_grad;
  if (options.max_products < 3 || !(options.rtol >= 0))
    throw UsageError("Hutch++ takes 3 products or more, and an rtol of 0 or more");
  return estimate_in_rounds(HutchPlusPlus(op, options, on_product), options, 3, kFirstThird);
}

}  // namespace hesspect
