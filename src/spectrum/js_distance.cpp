#include <algorithm>
#include <cmath>
#include <vector>

#include "hesspect/spectrum/analysis.h"

namespace hesspect {
namespace {

/// A density read at rising places. Between the grid's runs it is 0, as at both ends of each.
class Reader {
 public:
  explicit Reader(const Density& d) : d_(d) {}
  double at(double x) {
    while (next_ < d_.lambda.size() && d_.lambda[next_] <= x) ++next_;
    if (next_ == 0 || (next_ == d_.lambda.size() && x > d_.lambda.back())) return 0;
    const std::size_t left = next_ - 1;
    if (next_ == d_.lambda.size() || d_.lambda[left] == x) return d_.density[left];
    const double t = (x - d_.lambda[left]) / (d_.lambda[next_] - d_.lambda[left]);
    return d_.density[left] + t * (d_.density[next_] - d_.density[left]);
  }

 private:
  const Density& d_;
  std::size_t next_ = 0;
};

/// p log₂(p / m), m the mean of p and q.
double term(double p, double q) { return p > 0 ? p * std::log2(2 * p / (p + q)) : 0; }

}  // namespace

double js_distance(const Density& a, const Density& b) {
  std::vector<double> grid(a.lambda.size() + b.lambda.size());
  std::merge(a.lambda.begin(), a.lambda.end(), b.lambda.begin(), b.lambda.end(), grid.begin());
  Reader read_a(a), read_b(b);
  double mass_a = 0, mass_b = 0, divergence = 0, last_p = 0, last_q = 0;
  for (std::size_t i = 0; i < grid.size(); ++i) {
    const double p = read_a.at(grid[i]), q = read_b.at(grid[i]);
    if (i > 0) {
      const double half = (grid[i] - grid[i - 1]) / 2;
      mass_a += half * (p + last_p);
      mass_b += half * (q + last_q);
      divergence += half * (term(p, q) + term(q, p) + term(last_p, last_q) + term(last_q, last_p)) / 2;
    }
    last_p = p;
    last_q = q;
  }
  // Both masses are 1 but for what the grids leave out.
  const double mass = (mass_a + mass_b) / 2;
  return std::sqrt(std::clamp(divergence / mass, 0.0, 1.0));
}

}  // namespace hesspect
