// The layout's version, the names that the writer and the readers of result files share, and the schema as text.
#pragma once

#include <cstdint>
#include <string>

namespace hesspect::schema {

/// Root attribute that tells a result of hesspect, and the version of this layout. Layout 1 (version 0.1)
/// has no cumulative density, no layers, no products by purpose, and less about eigenvalues and trace. Layouts 1 and 2
/// have texts of variable length and no checksums.
inline constexpr const char* kMark = "hesspect_schema";
inline constexpr std::int64_t kVersion = 3;

inline constexpr const char* kCurvature = "loss/parameter^2";
inline constexpr const char* kInputCurvature = "loss/input^2";
inline constexpr const char* kCurvatureSq = "(loss/parameter^2)^2";
inline constexpr const char* kDensity = "parameter^2/loss";

/// The fields of a result file as a JSON list, a line each: path under /entry, type, shape by the names of its axes,
/// units, long name, and the layout since which all results have it.
std::string as_json();

}  // namespace hesspect::schema
