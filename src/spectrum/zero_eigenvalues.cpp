#include "hesspect/spectrum/zero_eigenvalues.h"

#include <algorithm>
#include <cmath>

namespace hesspect {
namespace {

void scale(Estimate& estimate, double share) {
  estimate.value *= share;
  estimate.standard_error *= share;
}

/// A value on its way into the lists.
struct Entry {
  EigenEstimate estimate;
  std::optional<std::size_t> source;
};

EigenEstimate exact_zero(bool converged, bool measured) {
  EigenEstimate zero;
  zero.converged = converged;
  if (measured) zero.true_residual = 0;
  return zero;
}

std::vector<Entry> entries_of(const std::vector<EigenEstimate>& list, std::size_t first) {
  std::vector<Entry> entries;
  for (std::size_t i = 0; i < list.size(); ++i) entries.push_back({list[i], first + i});
  return entries;
}

void append(const std::vector<Entry>& entries, std::vector<EigenEstimate>& list, EigenvaluesWithZeros& all) {
  for (const Entry& entry : entries) {
    list.push_back(entry.estimate);
    all.source.push_back(entry.source);
  }
}

class Merge {
 public:
  Merge(const EigenResult& in_use, const AskedEigenvalues& asked, std::int64_t n, std::int64_t zeros)
      : in_use_(in_use), asked_(asked), zeros_(zeros) {
    for (const auto* list : {&in_use.top, &in_use.bottom, &in_use.magnitude})
      for (const EigenEstimate& one : *list) {
        measured_ = measured_ || !std::isnan(one.true_residual);
        ++listed_;
      }
    is_whole_ = in_use.exhausted || listed_ >= n;
  }

  EigenvaluesWithZeros run() {
    EigenvaluesWithZeros all;
    all.result = in_use_;
    EigenResult& r = all.result;
    r.top.clear();
    r.bottom.clear();
    r.magnitude.clear();
    std::vector<Entry> top = entries_of(in_use_.top, 0), bottom = entries_of(in_use_.bottom, top.size());
    std::vector<Entry> magnitude = entries_of(in_use_.magnitude, 0);
    if (asked_.magnitude > 0)
      fill_up(magnitude, asked_.magnitude);
    else if (is_whole_)
      deal(top, bottom);
    else
      replace(top, bottom);
    append(top, r.top, all);
    append(bottom, r.bottom, all);
    append(magnitude, r.magnitude, all);
    const auto asked = static_cast<std::size_t>(asked_.top + asked_.bottom + asked_.magnitude);
    if (all.source.size() >= asked) r.exhausted = false;
    return all;
  }

 private:
  Entry zero(bool converged) {
    --zeros_;
    return {exact_zero(converged, measured_), std::nullopt};
  }

  /// Zeros are the smallest magnitudes that there are.
  void fill_up(std::vector<Entry>& list, std::int64_t asked) {
    while (is_whole_ && std::ssize(list) < asked && zeros_ > 0) list.push_back(zero(in_use_.converged));
  }

  /// All values in use are listed: the lists are dealt anew from these and the zeros.
  void deal(std::vector<Entry>& top, std::vector<Entry>& bottom) {
    std::vector<Entry> whole = std::move(top);
    whole.insert(whole.end(), bottom.begin(), bottom.end());
    const auto split = std::ranges::find_if(whole, [](const Entry& entry) { return entry.estimate.value < 0; });
    const std::int64_t most = std::min(zeros_, asked_.top + asked_.bottom);
    std::vector<Entry> some;
    for (std::int64_t i = 0; i < most; ++i) some.push_back(zero(in_use_.converged));
    whole.insert(split, some.begin(), some.end());
    const std::int64_t size = std::ssize(whole), first = std::min(asked_.top, size);
    const std::int64_t last = std::min(asked_.bottom, size - first);
    top.assign(whole.begin(), whole.begin() + first);
    bottom.assign(whole.end() - last, whole.end());
  }

  /// Between the two lists there are values that are not listed: zeros push out those furthest from the end.
  void replace(std::vector<Entry>& top, std::vector<Entry>& bottom) {
    const auto is_negative = [](const Entry& entry) { return entry.estimate.value < 0; };
    const auto is_positive = [](const Entry& entry) { return entry.estimate.value > 0; };
    std::vector<Entry> zeros;
    for (std::int64_t left = std::ranges::count_if(top, is_negative); left > 0 && zeros_ > 0; --left) {
      zeros.push_back(zero(top.back().estimate.converged));
      top.pop_back();
    }
    top.insert(std::ranges::find_if(top, is_negative), zeros.begin(), zeros.end());
    zeros.clear();
    for (std::int64_t left = std::ranges::count_if(bottom, is_positive); left > 0 && zeros_ > 0; --left) {
      zeros.push_back(zero(bottom.front().estimate.converged));
      bottom.erase(bottom.begin());
    }
    bottom.insert(std::ranges::find_if_not(bottom, is_positive), zeros.begin(), zeros.end());
  }

  const EigenResult& in_use_;
  AskedEigenvalues asked_;
  std::int64_t zeros_;
  std::int64_t listed_ = 0;
  bool is_whole_ = false, measured_ = false;
};

}  // namespace

CumulativeDensity with_zeros(CumulativeDensity d, std::int64_t n, std::int64_t zeros) {
  if (zeros <= 0 || d.lambda.empty()) return d;
  const double share = static_cast<double>(n) / (static_cast<double>(n) + static_cast<double>(zeros));
  const double at_zero = 1 - share;
  const auto place = std::lower_bound(d.lambda.begin(), d.lambda.end(), 0.0) - d.lambda.begin();
  if (place == std::ssize(d.lambda) || d.lambda[static_cast<std::size_t>(place)] != 0) {
    // F in use goes on there as left of it; left of all its steps nothing but the next step bounds it from above.
    const auto left = static_cast<std::size_t>(place - 1);
    const bool is_first = place == 0;
    d.lambda.insert(d.lambda.begin() + place, 0.0);
    d.cumulative.insert(d.cumulative.begin() + place, is_first ? 0 : d.cumulative[left]);
    d.lower.insert(d.lower.begin() + place, is_first ? 0 : d.lower[left]);
    d.upper.insert(d.upper.begin() + place, is_first ? d.upper.front() : d.upper[left]);
  }
  for (std::size_t i = 0; i < d.lambda.size(); ++i)
    for (std::vector<double>* values : {&d.cumulative, &d.lower, &d.upper})
      (*values)[i] = std::min(1.0, share * (*values)[i] + (d.lambda[i] >= 0 ? at_zero : 0));
  d.cumulative.back() = 1;
  for (double* bound : {&d.w1, &d.w1_sampling, &d.w1_quadrature, &d.w1_precision}) *bound *= share;
  d.range_lo = std::min(d.range_lo, 0.0);
  d.range_hi = std::max(d.range_hi, 0.0);
  scale(d.weight_at_zero, share);
  d.weight_at_zero.value += at_zero;
  scale(d.negative_mass, share);
  for (Estimate& moment : d.moments) scale(moment, share);
  return d;
}

EigenvaluesWithZeros with_zeros(const EigenResult& in_use, const AskedEigenvalues& asked, std::int64_t n,
                                std::int64_t zeros) {
  if (zeros > 0) return Merge(in_use, asked, n, zeros).run();
  EigenvaluesWithZeros same{in_use, {}};
  for (std::size_t i = 0; i < in_use.top.size() + in_use.bottom.size() + in_use.magnitude.size(); ++i)
    same.source.emplace_back(i);
  return same;
}

}  // namespace hesspect
