// Names and labels that the result's writer and reader share.
#pragma once

#include "hdf5_tree.h"

namespace hesspect::schema {

/// Root attribute that tells a result of hesspect, and the version of this layout.
inline constexpr const char* kMark = "hesspect_schema";
inline constexpr std::int64_t kVersion = 1;

inline constexpr const char* kCurvature = "loss/parameter^2";
inline constexpr const char* kDensity = "parameter^2/loss";

}  // namespace hesspect::schema
