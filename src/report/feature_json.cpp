#include "feature_json.h"

#include "figure_text.h"
#include "hesspect/core/text.h"

namespace hesspect {

nlohmann::ordered_json features_json(const FeaturesResult& all) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const FeatureResult& f : all.each) {
    nlohmann::ordered_json one{{"name", one_line(f.name)},
                               {"kind", f.kind},
                               {"parameters", f.parameters},
                               {"in_use", f.in_use},
                               {"frequency", number_json(all.frequency(f))},
                               {"look_ups", number_json(f.look_ups)},
                               {"nested", f.nested},
                               {"largest", number_json(f.largest.value)},
                               {"largest_error", number_json(f.largest.standard_error)},
                               {"trace", number_json(f.trace)},
                               {"trace_half_width", number_json(f.trace_half_width)},
                               {"mean", number_json(f.mean())},
                               {"mean_half_width", number_json(f.mean_half_width())},
                               {"norm", number_json(f.norm)}};
    one["changes"] = nlohmann::ordered_json::array();
    for (std::size_t k = 0; k < f.changes.size() && k < all.rho.size(); ++k) {
      const FeatureChange& c = f.changes[k];
      one["changes"].push_back({{"rho", all.rho[k]},
                                {"change", number_json(c.value)},
                                {"lower", number_json(c.lower)},
                                {"upper", number_json(c.upper)},
                                {"skewness", number_json(c.skewness)},
                                {"predicted", number_json(c.predicted)},
                                {"predicted_half_width", number_json(c.predicted_half_width)},
                                {"largest", number_json(c.largest)},
                                {"along_eigenvector", number_json(c.along)}});
    }
    list.push_back(std::move(one));
  }
  return list;
}

}  // namespace hesspect
