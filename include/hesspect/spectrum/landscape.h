// The loss along one or two directions, and the quadratic model of it that gradient and Hessian make.
//
//   q(t) = L + Σ t_i g·d_i + ½ Σ t_i t_j d_i·H d_j
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace hesspect {

/// A direction d through the parameters, and what is known of the loss along it at the start. Its coordinate t counts
/// in lengths of d.
struct LandscapeDirection {
  std::string name;          // "eigenvector 1", "random 0, filter-normalised", "to b.safetensors"
  double norm = 0;           // ‖d‖, in parameters
  double slope = 0;          // g·d
  double bend = 0;           // d·Hd
  double low = 0, high = 0;  // of the coordinates that are looked at
  /// To either side, how far out the quadratic model's change is off by no more than `tolerance` of itself, and the
  /// next step out, where it is: the radius of validity lies between. 0 where already the first is off; infinite where
  /// none is as far as low and high.
  double valid_below = 0, valid_below_fails = 0, valid_above = 0, valid_above_fails = 0;
};

struct Landscape {
  std::vector<LandscapeDirection> directions;  // one or two
  double loss_at_start = 0;
  double cross = 0;                            // d_1·H d_2
  std::vector<double> alpha, beta;             // [points of the first], [of the second; {0} where there is one]
  std::vector<std::vector<double>> loss;       // [alpha][beta], mean loss; not finite where the model overflows
  std::vector<std::vector<double>> quadratic;  // [alpha][beta]: q
  double tolerance = 0.1;                      // of the radius of validity
  double rounding = 0;                         // what losses are exact to, at best
};

/// q at (a, b).
double quadratic_model(const Landscape& landscape, double a, double b);

/// Coordinates [points] from low to high, among them 0 where it lies between: there the loss is known.
std::vector<double> coordinates(double low, double high, std::int64_t points);

/// How far along a direction the quadratic model's change doubles the loss: the half width that is looked at where none
/// is given. 1 where neither slope nor bend moves it.
double doubling_width(double loss, double slope, double bend);

/// Losses that `explore` takes at most.
std::int64_t most_losses(std::int64_t points, std::size_t directions);

/// Fills in alpha, beta, loss, quadratic and the radii, in that order.
/// @param loss_at  the loss at (a, b) lengths of the directions
/// @param points   of each direction
void explore(Landscape& landscape, std::int64_t points, const std::function<double(double a, double b)>& loss_at);

}  // namespace hesspect
