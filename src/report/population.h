// What figures are off by on other rows, and the intervals for the population that the rows were drawn from: from a
// result's data_error into its figures, and as words.
#pragma once

#include <string>
#include <vector>

#include "hesspect/report/figures.h"

namespace hesspect {

/// Into those of λ₁, λₙ, stable steps, trace, mean eigenvalue and Frobenius norm.
void add_population(const RunResult& result, std::vector<Figure>& figures);
/// Into the traces of parameter tensors, in the result's order.
void add_layer_population(const RunResult& result, std::vector<Figure>& layers);

/// "over rows ± 0.2 (standard error), population [9.6, 10.4]"; empty where nothing is known.
std::string population_text(const Figure& figure);

/// What a result says of the error that its data make, in a sentence; empty where groups of rows were not told apart.
std::string data_error_sentence(const NamedResult& named);

/// The figure with its population's interval in the place of the run's own, which no number of products narrows alone.
Figure of_population(Figure figure);

}  // namespace hesspect
