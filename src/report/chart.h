// Charts as SVG that stands inside a page: lines, areas, marks with errors, bars by name.
//
//   Chart chart("Spectral density", Axis::symlog(-1, 40, 0.01), Axis::log(1e-6, 10), "eigenvalue λ", "density");
//   chart.area(x, low, high, "band");
//   chart.line(x, y, "line");
//   page += chart.svg();
//
// Colours are the page's: every mark has a CSS class and no colour of its own. Points that are not finite break a line.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace hesspect {

/// Text for the inside of an element or an attribute.
std::string escaped(const std::string& text);

/// From numbers to the share of an axis's length, 0 to 1 between its ends.
class Axis {
 public:
  static Axis linear(double low, double high);
  static Axis log(double low, double high);  // both above 0
  /// Linear within ±threshold, logarithmic beyond: sign(x) log(1 + |x|/threshold).
  static Axis symlog(double low, double high, double threshold);

  double at(double x) const;
  double low() const { return low_; }
  double high() const { return high_; }
  /// Some eight values at most, and how they are written.
  std::vector<std::pair<double, std::string>> ticks() const;

 private:
  enum class Kind { kLinear, kLog, kSymlog };
  Axis(Kind kind, double low, double high, double threshold);
  double transformed(double x) const;

  Kind kind_;
  double low_, high_, threshold_;
};

class Chart {
 public:
  Chart(std::string title, Axis x, Axis y, std::string x_label, std::string y_label);

  void line(const std::vector<double>& x, const std::vector<double>& y, const std::string& css);
  /// y[i] from x[i] to x[i + 1].
  void steps(const std::vector<double>& x, const std::vector<double>& y, const std::string& css);
  void area(const std::vector<double>& x, const std::vector<double>& low, const std::vector<double>& high,
            const std::string& css);
  /// As an area whose edges are steps.
  void step_area(const std::vector<double>& x, const std::vector<double>& low, const std::vector<double>& high,
                 const std::string& css);
  /// @param low, high  of its error bar; NaN: none. @param tip  what a pointer over it says
  void mark(double x, double y, double low, double high, const std::string& css, const std::string& tip);
  /// A shade from 0 to 1 over a rectangle.
  void cell(double x_low, double x_high, double y_low, double y_high, double shade, const std::string& tip);
  void vertical(double x, const std::string& css, const std::string& tip = "");
  /// A short stem at the foot.
  void stem(double x, const std::string& css, const std::string& tip);
  void key(const std::string& css, const std::string& name) { keys_.emplace_back(css, name); }

  std::string svg() const;

 private:
  double px(double x) const;
  double py(double y) const;
  std::string path(const std::vector<double>& x, const std::vector<double>& y) const;

  std::string title_, x_label_, y_label_;
  Axis x_, y_;
  std::string marks_;
  std::vector<std::pair<std::string, std::string>> keys_;
};

/// A row of a chart of named numbers.
struct NamedValue {
  std::string name;
  double value = 0, low = 0, high = 0;  // low and high of its error bar; NaN: none
};

/// Rows of dots with error bars over one axis, zero marked.
std::string row_chart(const std::string& title, const std::vector<NamedValue>& rows, const Axis& axis,
                      const std::string& label);

/// A matrix of numbers as shades, rows and columns by name. @param values  [rows, columns], row by row, from 0 to 1
std::string heat_chart(const std::string& title, const std::vector<std::string>& rows,
                       const std::vector<std::string>& columns, const std::vector<double>& values);

}  // namespace hesspect
