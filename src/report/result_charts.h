// The pictures of a result, each as SVG; empty where the result lacks what it shows.
#pragma once

#include <string>

#include "hesspect/report/figures.h"

namespace hesspect {

std::string density_chart(const RunResult& result);
/// How many eigenvalues lie beyond λ, away from zero: both wings of the cumulative density on log axes.
std::string tail_chart(const RunResult& result);
/// Computed eigenvalues by rank.
std::string eigenvalue_chart(const RunResult& result);
std::string layer_chart(const RunResult& result);
std::string dimension_chart(const RunResult& result);
/// The distances between the densities of blocks.
std::string block_chart(const RunResult& result);
/// The largest eigenvalue of features over how often the data touch them.
std::string feature_chart(const RunResult& result);
/// The loss along one direction with its quadratic model, or over two.
std::string landscape_chart(const RunResult& result);
/// Of a landscape over two directions, what the page's script (surface_script.h) draws; hidden where no script runs.
std::string landscape_surface(const RunResult& result);

}  // namespace hesspect
