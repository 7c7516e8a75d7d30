#include "hesspect/spectrum/analysis.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/spectrum/cumulative.h"
#include "hesspect/spectrum/deflation.h"
#include "hesspect/spectrum/probe.h"

namespace hesspect {
namespace {

/// Steps between looks at what a run has reached.
constexpr std::int64_t kWindow = 8;

class Analyst {
 public:
  Analyst(LinearOperator& op, const AnalysisOptions& options, const std::function<void()>& on_product,
          at::Tensor* first_eigenvector)
      : op_(op), options_(options), on_product_(on_product), first_eigenvector_(first_eigenvector), n_(op.shard().n) {}

  Analysis go() {
    Lanczos run(op_, probe(0), options_.lanczos);
    carry_out(run);
    if (!done_.all_found && (options_.trace || options_.density)) {
      if (options_.trace) sample(run);
      further_runs(static_cast<std::int64_t>(done_.quadratures.front().alpha.size()));
    }
    return std::move(done_);
  }

 private:
  at::Tensor probe(std::int64_t number) const {
    return probe_vector(op_, options_.distribution, options_.seed, static_cast<std::uint64_t>(number));
  }
  /// Each rank has come to the opinion by floating-point work of its own.
  bool decided(bool mine) const { return op_.comm().of_rank0(mine); }
  std::int64_t left() const { return options_.max_products - done_.products; }
  std::int64_t residuals() const {
    const EigenOptions& e = options_.eigen;
    return options_.eigenvalues && options_.true_residuals ? std::min(n_, e.top + e.bottom + e.magnitude) : 0;
  }

  void count() {
    ++done_.products;
    if (on_product_) on_product_();
  }
  void extend(Lanczos& run, std::int64_t steps) {
    run.extend(op_, steps, [this](const Lanczos&) { count(); });
  }

  /// Steps of the first run: where they reach all n dimensions, so far.
  void carry_out(Lanczos& run) {
    const std::int64_t samples = options_.trace ? kNormSamples : 0;
    const std::int64_t most = std::max<std::int64_t>(2, options_.max_products - residuals() - samples);
    const bool by_density = options_.trace || options_.density;
    if (by_density) extend(run, std::min({options_.steps, most, n_}));
    if (options_.density && options_.density_w1 > 0) refine(run, most);
    if (by_density && n_ <= most) find_all(run, most);
    if (run.steps() > 0) done_.quadratures = {quadrature_of(run.t(), 0)};
    if (options_.eigenvalues) solve(run, most);
    // A run that restarted thick has no finer quadrature of its start vector.
    if (run.t().thick_restarts.empty()) done_.quadratures = {quadrature_of(run.t(), 0)};
    done_.all_found = all_found(run.t());
    if (first_eigenvector_ != nullptr && !pairs_.indices.empty()) {
      const VectorSource vectors = eigenvectors(run, pairs_);
      *first_eigenvector_ = agreed(op_.comm(), [&] { return vectors(0); });
    }
    if (done_.eigenvalues && options_.true_residuals) {
      EigenPairs& pairs = pairs_;
      measure_residuals(op_, eigenvectors(run, pairs), pairs, 1, [this] { count(); });
      done_.eigenvalues = pairs;
    }
  }

  void refine(Lanczos& run, std::int64_t most) {
    const auto coarse = [&] {
      const ProbeQuadrature q = quadrature_of(run.t(), 0);
      return quadrature_w1(q, n_) > options_.density_w1 / 2 * (q.ritz.back() - q.ritz.front());
    };
    while (run.steps() < most && !run.t().breakdown() && decided(coarse()))
      extend(run, std::min(kWindow, most - run.steps()));
  }

  /// A matrix this small is known exactly for less than what estimates of it would take.
  void find_all(Lanczos& run, std::int64_t most) {
    while (!all_found(run.t()) && run.t().rows() < most) {
      if (run.t().breakdown() && !restart_afresh(op_, run, options_.seed)) return;
      extend(run, std::min(kWindow, most - run.t().rows()));
    }
  }

  void solve(Lanczos& run, std::int64_t most) {
    EigenOptions eigen = options_.eigen;
    eigen.seed = options_.seed;
    eigen.max_steps = std::max(most, run.steps());
    pairs_ = hesspect::eigenvalues(op_, run, eigen, [this](const Lanczos&) { count(); });
    done_.eigenvalues = pairs_;
  }

  /// Samples of what the run's space leaves over, until the trace is known as asked.
  void sample(const Lanczos& run) {
    const KrylovDeflation space(op_, run, {});
    done_.captured = space.captured();
    done_.captured_sq = space.captured_sq();
    done_.deflated = space.rank();
    TraceRule rule = options_.rule;
    rule.min_samples = std::max(rule.min_samples, kNormSamples);
    rule.floor = trace_floor(done_.quadratures.front(), n_);
    const bool by_accuracy = rule.rtol > 0;
    TraceSums sums;
    at::Tensor hz = agreed(op_.comm(), [&] { return at::zeros({op_.shard().chunk}, op_.options()); });
    for (std::int64_t i = 0; i < rule.min_samples || left() > 0; ++i) {
      if (i >= rule.min_samples && (!by_accuracy || decided(sums.enough(done_.captured, rule)))) return;
      const at::Tensor z = probe(trace_probe(i));
      op_.apply(z, hz);
      const TraceSample one = trace_sample(op_, {}, trace_probe(i), z, hz);
      if (!std::isfinite(one.product_norm_sq))
        throw NumericalError(i, one.product_norm_sq, "a product with a block of the matrix is not finite");
      const DeflatedSample deflated = space.deflated(std::span(&one, 1), std::span(&z, 1)).front();
      done_.samples.push_back(deflated);
      sums.add(deflated);
      count();
    }
  }

  /// As long as the density asks for them, and there are products left for a whole one.
  void further_runs(std::int64_t steps) {
    const auto wanted = [&](std::int64_t runs) {
      if (runs < options_.probes) return true;
      if (!options_.density || options_.density_w1 <= 0) return false;
      const CumulativeDensity d = cumulative_density(
          done_.quadratures, n_,
          {.confidence = options_.rule.confidence, .moved = options_.density_error, .most_points = 0});
      const double bound = options_.density_w1 * (d.range_hi - d.range_lo);
      return d.w1 > bound && d.w1_quadrature + d.w1_precision < bound;
    };
    for (std::int64_t p = 1; left() >= steps && decided(wanted(p)); ++p) {
      Lanczos run(op_, probe(p), options_.lanczos);
      extend(run, steps);
      done_.quadratures.push_back(quadrature_of(run.t(), p));
    }
  }

  LinearOperator& op_;
  const AnalysisOptions& options_;
  const std::function<void()>& on_product_;
  at::Tensor* first_eigenvector_;
  std::int64_t n_;
  EigenPairs pairs_;
  Analysis done_;
};

/// Mean of λ^k over all eigenvalues, where these are known.
double exact_moment(const Analysis& analysis, std::int64_t n, std::size_t power) {
  const CumulativeDensity d = cumulative_density(analysis.quadratures, n, {.most_points = 0});
  return d.moments.at(power - 1).value;
}

}  // namespace

Analysis analyse(LinearOperator& op, const AnalysisOptions& options, const std::function<void()>& on_product,
                 at::Tensor* first_eigenvector) {
  return Analyst(op, options, on_product, first_eigenvector).go();
}

TraceEstimate trace_of(const Analysis& analysis, std::int64_t n, TraceRule rule, double rounding) {
  rule.floor = trace_floor(analysis.quadratures.front(), n);
  TraceEstimate trace;
  if (analysis.all_found) {
    trace.value = trace.captured = static_cast<double>(n) * exact_moment(analysis, n, 1);
    trace.deflated = n;
    trace.confidence = rule.confidence;
    trace.method = "exact";
  } else {
    trace = trace_estimate(analysis.captured, analysis.samples, rule);
    trace.deflated = analysis.deflated;
    trace.products = trace.samples;
  }
  trace.half_width += rounding * std::max(std::abs(trace.value), rule.floor);
  return trace;
}

Estimate norm_sq_of(double captured_sq, const std::vector<DeflatedSample>& samples) {
  if (samples.size() < 2) return {captured_sq, std::numeric_limits<double>::quiet_NaN()};
  const auto count = static_cast<double>(samples.size());
  double mean = 0, square = 0;
  for (const DeflatedSample& sample : samples) mean += sample.product_norm_sq / count;
  for (const DeflatedSample& sample : samples) square += std::pow(sample.product_norm_sq - mean, 2);
  return {captured_sq + mean, std::sqrt(square / (count - 1) / count)};
}

Estimate norm_sq_of(const Analysis& analysis, std::int64_t n) {
  if (analysis.all_found) return {static_cast<double>(n) * exact_moment(analysis, n, 2), 0};
  return norm_sq_of(analysis.captured_sq, analysis.samples);
}

Estimate off_block_share(const Estimate& whole, const std::vector<Estimate>& blocks) {
  double sum = 0, variance = 0;
  for (const Estimate& block : blocks) {
    sum += block.value;
    variance += block.standard_error * block.standard_error;
  }
  const double share = sum / whole.value;
  return {1 - share, std::sqrt(variance + std::pow(share * whole.standard_error, 2)) / whole.value};
}

}  // namespace hesspect
