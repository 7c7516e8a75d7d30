#include "one_group.h"

#include <cmath>
#include <limits>

#include "facts.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/report/text.h"
#include "hesspect/run/solver_options.h"
#include "hesspect/spectrum/probe.h"
#include "hesspect/spectrum/zero_eigenvalues.h"
#include "planning.h"
#include "process.h"
#include "run_start.h"

namespace hesspect {
namespace {

constexpr double kTellEvery_s = 30;

}  // namespace

RunConfig one_group_config(RunConfig config, std::int64_t top, std::int64_t bottom) {
  config.eigs.top = top;
  config.eigs.bottom = bottom;
  config.eigs.magnitude = 0;
  config.eigs.true_residuals = false;
  config.layout.groups = 1;
  return config;
}

OneGroup::OneGroup(const Invocation& run, const std::vector<std::string>& argv, std::int64_t top, std::int64_t bottom,
                   Communicator& world, RunLife* life)
    : run_(run),
      argv_(argv),
      world_(world),
      life_(life),
      config_(one_group_config(run.config, top, bottom)),
      start_time_(utc_time()) {
  agree(world_, [&] {
    if (life_ == nullptr && world_.rank() == 0) check_new_outputs(config_, {config_.output.output});
  });
  problem_ = read_problem(config_, life_ != nullptr ? life_->threads() : 0, Weights::kRequired, nullptr, world_);
  if (life_ != nullptr)
    life_->take_sources(problem_);
  else
    hashing_ = std::make_unique<SourceHashing>(config_.model.model, problem_.weight_files, config_.data.data, world_);
  goals_ = goals_of(Command::kEigs, config_, problem_.program->layout().size());
  if (life_ != nullptr) {
    layout_ = life_->planned(config_, goals_, problem_, "losses and Lanczos vectors are kept");
  } else {
    layout_.plan = plan_run(config_, goals_, problem_, nullptr, world_);
    layout_.world = world_.size();
    layout_.threads = problem_.threads;
    layout_.device = problem_.device.is_cuda() ? "cuda" : "cpu";
  }
  group_ = make_group(problem_, layout_.plan, world_);
  op().set_precision(MatrixPrecision::kFp32);  // of few products, which all figures hang on
  if (life_ == nullptr) return;
  checkpoint_ = std::make_unique<LanczosCheckpoint>(life_->folder(), life_->start().state.run_id, *group_.comm);
}

void OneGroup::pause() {
  if (life_ == nullptr) return;
  const bool stop = world_.any(life_->is_to_stop());
  save(stop);
  if (stop) throw RunStopped{};
}

void OneGroup::save(bool stop) {
  const bool is_first = !life_->begun();
  if (is_first) life_->begin();
  const double every_s = 60 * config_.checkpoint.checkpoint_minutes;
  if (lanczos_ && world_.of_rank0(stop || (every_s > 0 && since_vectors_.elapsed_s() > every_s))) {
    life_->try_to_write(stop, [&] { checkpoint_->save(0, *lanczos_, op().shard()); });
    since_vectors_.reset();
  }
  life_->save_if_due(is_first || stop, stop, layout_, [&](LedgerState& state) {
    state.products += op().stats().products;
    state.product_s += op().stats().product_s;
    if (progress_) progress_(state);
  });
}

/// A new one, or one that goes on from the checkpoint.
std::unique_ptr<Lanczos> OneGroup::lanczos_run() {
  const LanczosOptions options = lanczos_options(goals_, layout_.plan);
  if (checkpoint_ != nullptr && life_->start().resumed) {
    if (auto run = checkpoint_->resume(op(), 0, options, [](const std::string& text) { log_warning(text); })) {
      log_info("the eigenvectors' run goes on after " + format_count(run->replay_left()) + " Lanczos steps");
      return run;
    }
  }
  return std::make_unique<Lanczos>(op(), probe_vector(op(), goals_.distribution, goals_.seed, 0), options);
}

double OneGroup::dot(const at::Tensor& a, const at::Tensor& b) { return group_.comm->sum(dot_product(a, b)); }

const EigenPairs& OneGroup::find_eigenpairs() {
  if (searched_ || config_.eigs.top + config_.eigs.bottom == 0) return pairs_;
  searched_ = true;
  lanczos_ = lanczos_run();
  pairs_ = eigenvalues(op(), *lanczos_, eigen_options(goals_, layout_.plan), [this](const Lanczos& run) {
    tell("eigenvectors: " + format_count(run.steps()) + " Lanczos steps");
    pause();
  });
  eigenvectors_ = eigenvectors(*lanczos_, pairs_);
  if (!pairs_.converged)
    warn("not all eigenvectors converged in " + std::to_string(pairs_.steps) +
         " products: raise --max-steps or --rtol-eigs");
  return pairs_;
}

at::Tensor OneGroup::eigenvector(std::size_t place) {
  return agreed(*group_.comm, [&] { return eigenvectors_(place); });
}

EigenPairs OneGroup::leading_pair(LinearOperator& op, at::Tensor& vector) {
  eigenvectors_ = nullptr;
  lanczos_.reset();
  Lanczos run(op, probe_vector(op, goals_.distribution, goals_.seed, 0), lanczos_options(goals_, layout_.plan));
  EigenOptions options = eigen_options(goals_, layout_.plan);
  options.top = 1;
  options.bottom = 0;
  EigenPairs pairs = eigenvalues(op, run, options, [this](const Lanczos& r) {
    tell("preconditioned eigenvalue: " + format_count(r.steps()) + " Lanczos steps");
  });
  if (pairs.top.empty()) return pairs;
  const VectorSource vectors = eigenvectors(run, pairs);
  vector = agreed(*group_.comm, [&] { return vectors(0); });
  return pairs;
}

double OneGroup::rounding_of(double loss) const {
  const bool is_double = config_.compute.dtype == ElementType::kF64;
  return std::abs(loss) * (is_double ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon());
}

void OneGroup::warn(const std::string& text) {
  problem_.warnings.push_back(text);
  log_warning(text);
}

void OneGroup::tell(const std::string& text) {
  if (told_.elapsed_s() < kTellEvery_s) return;
  told_.reset();
  log_info(text);
}

int OneGroup::finish(const std::function<void(RunResult&)>& add) {
  RunFacts facts =
      run_facts(run_, argv_, problem_, layout_, group_, life_ != nullptr ? life_->start_time() : start_time_, world_);
  RunResult r;
  r.warnings = std::move(facts.warnings);
  r.process = std::move(facts.process);
  r.diagnostics = std::move(facts.diagnostics);
  const ParameterLayout& parameters = problem_.program->layout();
  if (searched_)
    r.eigenvalues = with_zeros(pairs_, {config_.eigs.top, config_.eigs.bottom, 0}, parameters.size(),
                               parameters.model_size() - parameters.size())
                        .result;
  hashing().gather(world_);
  agree(world_, [&] {
    if (world_.rank() == 0) write(r, add);
  });
  return exit_code_of(r);
}

/// Rank 0.
void OneGroup::write(RunResult& r, const std::function<void(RunResult&)>& add) {
  set_sources(r.process, hashing().sources());
  r.diagnostics.data_ranks = world_.size();
  r.diagnostics.products = op().stats().products;
  r.diagnostics.product_s = op().stats().product_s;
  r.diagnostics.elapsed_s = timer_.elapsed_s();
  if (life_ != nullptr) {
    const LedgerState& before = life_->start().state;
    r.diagnostics.products += before.products;
    r.diagnostics.product_s += before.product_s;
    r.diagnostics.elapsed_s += before.elapsed_s;
    r.diagnostics.starts = before.starts;
    r.process.run_id = before.run_id;
  }
  r.diagnostics.symmetry_error = Diagnostics::kNotMeasured;
  r.diagnostics.cost_in_gradients = Diagnostics::kNotMeasured;
  r.diagnostics.orthogonality_loss = Diagnostics::kNotMeasured;
  r.counts.eigenvalues = pairs_.steps;
  add(r);
  for (const std::string& line : findings(r)) log_info(line);
  if (life_ != nullptr) {
    life_->write(r);
    return;
  }
  write_result(config_.output.output, r);
  log_info("  result          " + quote(config_.output.output));
}

}  // namespace hesspect
