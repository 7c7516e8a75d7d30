// Who does what next: the policies in turn.
#pragma once

#include "policies.h"

namespace hesspect {

class Schedule {
 public:
  Schedule(const Goals& goals, const Plan& plan)
      : goals_(goals), trace_(goals, plan), density_(goals, plan, trace_), eigen_(goals), blocks_(goals) {}
  Schedule(const Schedule&) = delete;
  Schedule& operator=(const Schedule&) = delete;

  Task next(const Ledger& ledger, int group);
  /// All that is asked of the whole matrix.
  bool whole_done(const Ledger& ledger) const {
    return density_.done(ledger) && eigen_.done(ledger) && trace_.done(ledger);
  }
  bool done(const Ledger& ledger) const { return whole_done(ledger) && blocks_.done(ledger); }
  /// Products with the whole matrix and with blocks, as far as can be told.
  ProductRange expected(const Ledger& ledger) const;

 private:
  const Goals& goals_;
  TracePolicy trace_;
  DensityPolicy density_;
  EigenPolicy eigen_;
  BlockPolicy blocks_;
};

}  // namespace hesspect
