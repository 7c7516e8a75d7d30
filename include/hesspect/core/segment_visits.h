// The order in which a product goes through a program's segments, where their parameters come and go
// (src/curvature/sharded_products.h), which the plan counts by.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace hesspect {

struct SegmentVisit {
  std::size_t segment = 0;
  bool backwards = false;                        // forwards again, held, and back
  std::optional<std::size_t> lets_go_from = {};  // the segment from which on what was made goes afterwards
};

/// Forwards through all but the last, and backwards through all. A span's segments but its last one are run once more
/// before the way back through it, whose first visit runs that one anyway; what the last span has made is there.
/// @param segments  at least 1
/// @param span      segments in a span, within which nothing that crosses a cut is held meanwhile; 1: all is held
inline std::vector<SegmentVisit> product_visits(std::size_t segments, std::size_t span) {
  std::vector<SegmentVisit> all;
  const std::size_t last_span = (segments - 1) / span * span;  // its first segment
  for (std::size_t s = 0; s + 1 < segments; ++s) {
    all.push_back({.segment = s});
    if (span > 1 && s < last_span && (s + 1) % span == 0) all.back().lets_go_from = s + 1 - span;
  }
  for (std::size_t end = segments; end > 0;) {
    const std::size_t begin = (end - 1) / span * span;
    for (std::size_t s = begin; end < segments && s + 1 < end; ++s) all.push_back({.segment = s});
    for (std::size_t s = end; s-- > begin;) all.push_back({.segment = s, .backwards = true});
    end = begin;
  }
  return all;
}

/// Of these, what a product needs that goes back through some segments alone: no visit goes back through another, nor
/// forwards once more within a span that has none.
/// @param reached  [segments]. The last segment is taken in any case: it has the loss
inline std::vector<SegmentVisit> without_unreached(std::vector<SegmentVisit> all, const std::vector<bool>& reached,
                                                   std::size_t span) {
  std::vector<bool> spans(reached.size() / span + 1, false);
  for (std::size_t s = 0; s < reached.size(); ++s)
    if (reached[s]) spans[s / span] = true;
  bool is_way_back = false;
  std::erase_if(all, [&](const SegmentVisit& visit) {
    is_way_back = is_way_back || visit.backwards;
    if (!is_way_back || visit.segment + 1 == reached.size()) return false;
    return visit.backwards ? !reached[visit.segment] : !spans[visit.segment / span];
  });
  return all;
}

}  // namespace hesspect
