#include "hesspect/run/ledger.h"

#include <algorithm>

#include "hesspect/core/errors.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/core/text.h"
#include "ledger_fields.h"

namespace hesspect {
namespace {

template <class T>
const T* at_number(const std::unordered_map<std::int64_t, std::size_t>& places, const std::vector<T>& all,
                   std::int64_t number) {
  const auto found = places.find(number);
  return found == places.end() ? nullptr : &all[found->second];
}

/// Adds a sample, or puts it in the place of an earlier one of the same probe.
template <class Sample>
void put(std::unordered_map<std::int64_t, std::size_t>& places, std::vector<Sample>& all, Sample sample) {
  const auto [place, fresh] = places.try_emplace(sample.probe, all.size());
  if (fresh)
    all.push_back(std::move(sample));
  else
    all[place->second] = std::move(sample);
}

}  // namespace

std::string to_text(const RunLayout& layout) { return FieldWriter::text(layout); }

RunLayout run_layout_from(const std::string& text) { return FieldReader::from<RunLayout>(text, "layout"); }

std::optional<LedgerState> read_state(const CheckpointFolder& folder, std::vector<std::string>& warnings) {
  auto state = folder.read_run<LedgerState>(warnings);
  if (!state) return state;
  const Plan& plan = state->layout.plan;
  if (plan.groups < 1 || plan.data_ranks < 1 || plan.lock_step < 1 || plan.joint < 1 || plan.micro_batch < 0 ||
      state->layout.world != plan.groups * plan.data_ranks)
    throw InputError("the checkpoint folder " + quote(folder.path().string()) + " holds an impossible layout");
  return state;
}

void write_state(CheckpointFolder& folder, const LedgerState& state) { folder.write_run(state); }

void give_up_own_samples(LedgerState& state) {
  const auto own = [](const auto& sample) { return sample.probe >= trace_probe(kSymmetryProbes); };
  std::erase_if(state.samples, own);
  std::erase_if(state.deflated, own);
}

SampleOrder::SampleOrder(const Goals& goals) : first_run_(goals.deflates() ? 1 : 0) {
  if (!goals.writes_diagonal()) free_ = kSymmetryProbes + std::max<std::int64_t>(0, goals.runs - first_run_);
}

std::int64_t SampleOrder::probe(std::int64_t i) const {
  if (free_ == 0) return trace_probe(kSymmetryProbes + i);
  if (i < kSymmetryProbes) return trace_probe(i);
  return i < free_ ? i - kSymmetryProbes + first_run_ : trace_probe(kSymmetryProbes + i - free_);
}

std::int64_t products_of(const FinishedProbe& probe) {
  const auto steps = static_cast<std::int64_t>(probe.quadrature.alpha.size());
  if (!probe.eigenvalues) return steps;
  return std::max(steps, probe.eigenvalues->steps) + probe.eigenvalues->residual_products;
}

std::string to_text(const InputsProgress& progress) { return FieldWriter::text(progress); }
InputsProgress inputs_progress_from(const std::string& text) {
  return FieldReader::from<InputsProgress>(text, "rows that are finished");
}

std::string to_text(const LandscapeProgress& progress) { return FieldWriter::text(progress); }
LandscapeProgress landscape_progress_from(const std::string& text) {
  return FieldReader::from<LandscapeProgress>(text, "losses that are taken");
}

std::int64_t products_of(const FinishedBlock& block) {
  return block.analysis.products + (block.changes ? std::ssize(block.changes->curvature) : 0);
}

Ledger::Ledger(LedgerState state, const Goals& goals, int groups)
    : state_(std::move(state)), order_(goals), corrects_(goals.deflates()), tallies_(static_cast<std::size_t>(groups)) {
  for (std::size_t i = 0; i < state_.finished.size(); ++i) finished_at_[state_.finished[i].quadrature.probe] = i;
  for (std::size_t i = 0; i < state_.samples.size(); ++i) sample_at_[state_.samples[i].probe] = i;
  for (std::size_t i = 0; i < state_.deflated.size(); ++i) deflated_at_[state_.deflated[i].probe] = i;
  while (finished(finished_runs_) != nullptr) ++finished_runs_;
  for (const FinishedBlock& one : state_.blocks) block_products_before_ += products_of(one);
  extend_prefix();
}

void Ledger::add(FinishedProbe probe) {
  finished_at_[probe.quadrature.probe] = state_.finished.size();
  state_.finished.push_back(std::move(probe));
  while (finished(finished_runs_) != nullptr) ++finished_runs_;
}

void Ledger::add(TraceSample sample) {
  put(sample_at_, state_.samples, std::move(sample));
  extend_prefix();
}

void Ledger::add(DeflatedSample sample) {
  put(deflated_at_, state_.deflated, std::move(sample));
  extend_prefix();
}

void Ledger::set_deflation(DeflationState deflation) {
  // Another space than an earlier start's, where its vectors were lost: samples are corrected by one space alone.
  if (state_.deflation &&
      (deflation.rank != state_.deflation->rank || deflation.captured != state_.deflation->captured)) {
    state_.deflated.clear();
    deflated_at_.clear();
    prefix_ = {{}, prefix_.generation + 1};
  }
  state_.deflation = std::move(deflation);
  has_basis_ = true;
  extend_prefix();
}

void Ledger::set_trace(TraceEstimate trace) { state_.trace = std::move(trace); }
void Ledger::set_eigenvalues(EigenResult eigenvalues) { state_.eigenvalues = std::move(eigenvalues); }

void Ledger::set_symmetry(double error, double curvature_scale) {
  state_.symmetry_error = error;
  state_.curvature_scale = curvature_scale;
}

void Ledger::set_sources(std::vector<SourceFile> model, std::vector<SourceFile> weights, std::vector<SourceFile> data) {
  state_.model = std::move(model);
  state_.weights = std::move(weights);
  state_.data = std::move(data);
}

void Ledger::set_tally(int group, const Tally& tally) { tallies_.at(static_cast<std::size_t>(group)) = tally; }

LedgerState Ledger::state(double elapsed_s) const {
  LedgerState total = state_;
  for (const Tally& tally : tallies_) {
    total.products += tally.products;
    total.product_s += tally.product_s;
    total.communication_s += tally.communication_s;
  }
  total.elapsed_s += elapsed_s;
  return total;
}

const FinishedProbe* Ledger::finished(std::int64_t probe) const {
  return at_number(finished_at_, state_.finished, probe);
}
const TraceSample* Ledger::sample(std::int64_t probe) const { return at_number(sample_at_, state_.samples, probe); }
const DeflatedSample* Ledger::deflated(std::int64_t probe) const {
  return at_number(deflated_at_, state_.deflated, probe);
}

const FinishedBlock* Ledger::block(const std::string& name) const {
  const auto found = std::ranges::find(state_.blocks, name, &FinishedBlock::name);
  return found == state_.blocks.end() ? nullptr : &*found;
}

std::int64_t Ledger::products_of_runs(std::int64_t runs) const {
  std::int64_t products = 0;
  for (const FinishedProbe& one : state_.finished)
    if (one.quadrature.probe < runs) products += products_of(one);
  return products;
}

std::int64_t Ledger::quadrature_steps(std::int64_t runs) const {
  std::int64_t steps = 0;
  for (std::int64_t p = 0; p < runs; ++p) steps += static_cast<std::int64_t>(finished(p)->quadrature.alpha.size());
  return steps;
}

std::int64_t Ledger::products_before_trace(std::int64_t runs) const {
  std::int64_t products = kSymmetryProbes + products_of_runs(runs);
  if (state_.eigenvalues) products += state_.eigenvalues->steps + state_.eigenvalues->residual_products;
  return products;
}

std::int64_t Ledger::products() const {
  std::int64_t total = state_.products;
  for (const Tally& tally : tallies_) total += tally.products;
  return total;
}

std::int64_t Ledger::block_products() const {
  std::int64_t total = block_products_before_;
  for (const Tally& tally : tallies_) total += tally.block_products;
  return total;
}

void Ledger::extend_prefix() {
  if (corrects_ && !state_.deflation) return;
  const auto take = [&](const auto* sample) {
    if (sample == nullptr) return false;
    prefix_.samples.push_back({sample->probe, sample->quadratic_form, sample->product_norm_sq, {}});
    return true;
  };
  const auto next = [&] { return order_.probe(static_cast<std::int64_t>(prefix_.samples.size())); };
  while (corrects_ ? take(deflated(next())) : take(sample(next()))) {
  }
}

}  // namespace hesspect
