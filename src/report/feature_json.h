// Features as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "hesspect/io/result_file.h"

namespace hesspect {

/// A list, with everything that the result has of each.
nlohmann::ordered_json features_json(const FeaturesResult& features);

}  // namespace hesspect
