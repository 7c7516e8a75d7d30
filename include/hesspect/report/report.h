// What results say of their models, for people: text, JSON, or one page of HTML with its pictures in it.
#pragma once

#include <string>
#include <vector>

#include "hesspect/report/figures.h"

namespace hesspect {

/// @throws as figures_of
std::string report_text(const std::vector<NamedResult>& results, const FigureOptions& options);
/// Numbers that are not known are null.
std::string report_json(const std::vector<NamedResult>& results, const FigureOptions& options);
/// A whole document that refers to nothing outside it, for light and dark screens.
std::string report_html(const std::vector<NamedResult>& results, const FigureOptions& options);

/// What is known of the error that the data make, a sentence for each pair of results of the same weights on other
/// rows, or one that says that it is not measured.
std::vector<std::string> data_error(const std::vector<NamedResult>& results);

/// What none of them has, and a reader might look for.
std::vector<std::string> not_measured(const std::vector<NamedResult>& results);

}  // namespace hesspect
