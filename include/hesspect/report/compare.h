// Results of like-trained models side by side.
//
//   const Comparison c = compare({{"a.h5", a}, {"b.h5", b}}, {});   // throws where they are not comparable
//   for (const ComparedFigure& row : c.figures) … row.figures[1], row.verdicts[1] …
//
// A verdict is a difference between two numbers on the data that both had, where their intervals don't overlap. It is
// no grade: no figure of curvature says by itself which model is the better one (definitions.cpp has who showed that).
#pragma once

#include <string>
#include <vector>

#include "hesspect/report/figures.h"

namespace hesspect {

/// Of a figure against the first result's.
struct Verdict {
  enum class Kind { kNone, kEqual, kLower, kHigher, kUndecided };
  Kind kind = Kind::kNone;  // kNone: one of them is not known, or it is no estimate
  /// kUndecided: so many more products, over both results, would part the intervals as they are; infinite: none would.
  double products = 0;
  /// What the intervals are of: one set of rows that both had; the populations of other rows each; or other rows, on
  /// which nothing is known of the populations.
  enum class Basis { kSameRows, kPopulations, kRowsAlone };
  Basis basis = Basis::kSameRows;
};

/// Never throws. @param first, other  figures of the same key
Verdict verdict_of(const Figure& first, const Figure& other);
/// The same of figures on other rows: by the intervals of the populations, where both have them.
Verdict verdict_over_rows(const Figure& first, const Figure& other);

/// "higher", "can't be told: about 120 more products would", …
std::string verdict_text(const Verdict& verdict);

struct ComparedFigure {
  std::vector<Figure> figures;    // [results]
  std::vector<Verdict> verdicts;  // [results], the first one's kNone
};

/// How far the spectra are apart as distributions: ∫ |F_a − F_b| dλ.
struct DensityDistance {
  double value = Figure::kUnknown;  // in units of λ
  double lower = 0, upper = 0;      // by the bounds of both densities
  double shape = Figure::kUnknown;  // the same after each was divided by its largest eigenvalue
  double shape_lower = 0, shape_upper = 0;
  Verdict verdict;  // kHigher: they differ
};

struct Comparison {
  std::vector<std::string> names;     // [results]
  std::vector<std::string> warnings;  // what makes the numbers less comparable
  std::vector<ComparedFigure> figures;
  std::vector<ComparedFigure> layers;      // those that all have
  std::vector<ComparedFigure> blocks;      // the same: a figure of a block each
  std::vector<DensityDistance> densities;  // [results], to the first; empty where one has none
};

/// @param force  compares models of different size too
/// @throws UsageError for fewer than two results; InputError where one is not comparable with the first, with all
///         reasons in a line
Comparison compare(const std::vector<NamedResult>& results, const FigureOptions& options, bool force = false);

std::string comparison_text(const Comparison& comparison);
std::string comparison_json(const Comparison& comparison);

/// Why no model is graded alone, in a paragraph.
std::string why_no_grade();

}  // namespace hesspect
