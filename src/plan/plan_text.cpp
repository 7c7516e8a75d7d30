// A plan in words.
#include <algorithm>
#include <cstdio>
#include <optional>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/plan/plan.h"
#include "plan_lines.h"
#include "plan_model.h"

namespace hesspect {

namespace plan_lines {

std::string counted(std::int64_t count, const std::string& thing) {
  return format_count(count) + " " + thing + (count == 1 ? "" : "s");
}

std::string line(const std::string& label, const std::string& text) {
  char column[32];
  std::snprintf(column, sizeof column, "  %-13s ", label.c_str());
  return column + text;
}

std::string row(const std::string& kind, std::int64_t bytes) {
  char text[96];
  std::snprintf(text, sizeof text, "    %-38s %12s", kind.c_str(), format_bytes(bytes).c_str());
  return text;
}

}  // namespace plan_lines

namespace {

using plan_lines::counted;
using plan_lines::line;
using plan_lines::row;

std::string rate(double bytes_per_s) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g GB/s", bytes_per_s / 1e9);
  return text;
}

class Description {
 public:
  Description(const Plan& plan, const PlanInputs& inputs) : plan_(plan), inputs_(inputs) {}

  std::vector<std::string> lines() {
    if (!plan_.fits) add("does not fit", "what comes nearest:");
    layout();
    parameters();
    basis();
    micro_batches();
    memory();
    cost();
    unknown();
    return std::move(lines_);
  }

 private:
  bool measured() const { return inputs_.measured(); }
  std::int64_t probes() const { return std::max<std::int64_t>(1, inputs_.demand.probes); }
  void add(const std::string& label, const std::string& text) { lines_.push_back(line(label, text)); }

  void layout() {
    const std::int64_t probes = this->probes();
    std::string text = counted(plan_.groups, "group") + " of " + counted(plan_.data_ranks, "rank") + ", " +
                       counted(plan_.lock_step, "probe") + " at a time" + (plan_.groups > 1 ? " in each; " : "; ") +
                       counted(probes, "probe") + " in all";
    const std::int64_t blocks = std::ssize(inputs_.demand.blocks), tasks = std::max(probes, blocks);
    if (blocks > 0) text += ", then " + counted(blocks, noun());
    if (plan_.groups > tasks) text += ", so " + counted(plan_.groups - tasks, "group") + " idle";
    add("layout", text);
    if (inputs_.problem.unit_rows > 1) units();
    for (const std::optional<int>& groups : {next_groups(+1), next_groups(-1)})
      if (groups) why_not(*groups, tasks);
  }

  bool is_shared() const { return plan_.parameters != ParameterMemory::kReplicated; }

  void parameters() {
    if (!inputs_.by_shapes()) return;
    if (!is_shared()) return add("parameters", "all on every rank");
    add("parameters",
        std::string(plan_.parameters == ParameterMemory::kHost ? "in host memory, " : "") +
            (plan_.data_ranks > 1 ? "shared by the " + counted(plan_.data_ranks, "rank") + " of a group, " : "") +
            "whole for one of " + counted(plan_.segments, "segment") + " at a time" +
            (plan_.fetch_ahead ? ", while the next one is gathered" : ""));
    if (plan_.crossing_on_host) add("crossing", "what crosses cuts is in host memory, and comes back when it is read");
    if (plan_.passes > 1)
      add("passes", format_count(plan_.passes) + " through the segments for each product, each with a part of the " +
                        "micro-batches");
    if (plan_.span > 1)
      add("crossing",
          "what crosses cuts is held between every " + counted(plan_.span, "segment") + ", and made again within them");
  }

  const char* noun() const { return inputs_.demand.are_features ? "feature" : "block"; }

  void units() {
    const std::int64_t working = std::min<std::int64_t>(inputs_.problem.units(), plan_.data_ranks);
    const std::int64_t others = plan_.data_ranks - working;
    std::string text = counted(inputs_.problem.units(), "unit") + " of " + format_count(inputs_.problem.unit_rows) +
                       " rows, never parted";
    if (others > 0)
      text += ": " + counted(working, "rank") + " of each group " + (working == 1 ? "has" : "have") +
              " rows, the other " + format_count(others) + " only hold" + (others == 1 ? "s" : "") + " vectors";
    add("", text);
  }

  /// The next number of groups, up or down, that divides the ranks.
  std::optional<int> next_groups(int direction) const {
    for (int groups = plan_.groups + direction; groups >= 1 && groups <= inputs_.machine.world; groups += direction)
      if (inputs_.machine.world % groups == 0) return groups;
    return std::nullopt;
  }

  /// @param tasks  probes, or blocks where there are more
  void why_not(int groups, std::int64_t tasks) {
    const std::string what = counted(groups, "group") + " of " + counted(inputs_.machine.world / groups, "rank");
    if (groups > tasks && groups > plan_.groups) {
      add("", what + " would leave groups without a " + (tasks > probes() ? noun() : "probe"));
      return;
    }
    PlanInputs inputs = inputs_;
    inputs.request = {};
    inputs.request.groups = groups;
    inputs.request.parameters = inputs_.request.parameters;
    const Plan other = make_plan(inputs);
    if (!other.fits) {
      add("", what + " would not fit: " + format_bytes(other.bytes.total()) + " a rank");
    } else if (plan_model::bytes_of(other.basis_dtype) < plan_model::bytes_of(plan_.basis_dtype)) {
      add("", what + " would need a basis in " + to_string(other.basis_dtype));
    } else if (inputs_.timed()) {
      add("", what + " would take " + format_duration(other.run_s));
    }
  }

  void basis() {
    const std::int64_t most = plan_model::longest_steps(inputs_.problem, inputs_.demand);
    std::string text =
        to_string(plan_.basis_dtype) +
        (inputs_.problem.on_gpu && inputs_.demand.reorthogonalize ? ", in " + to_string(plan_.basis_memory) + " memory"
                                                                  : "") +
        ", ";
    const std::int64_t rows = plan_.max_basis > 0 ? std::min(most, plan_.max_basis) : most;
    text += inputs_.demand.reorthogonalize ? "up to " + counted(rows + 1, "vector") + " a probe" : "2 vectors a probe";
    if (inputs_.demand.reorthogonalize && rows < most) text += ", then a thick restart";
    const std::int64_t chunk = (inputs_.problem.parameters + plan_.data_ranks - 1) / plan_.data_ranks;
    add("basis", text + " of " + format_count(chunk) + " entries a rank");
  }

  void micro_batches() {
    if (plan_.micro_batch == 0) return;
    std::string text = format_count(plan_.micro_batch) + (plan_.micro_batch == 1 ? " row, " : " rows, ") +
                       format_count(plan_.micro_batches) + " of them on a rank";
    if (measured())
      text += plan_.kept_graphs == plan_.micro_batches ? ", all kept between products"
              : plan_.kept_graphs == 0                 ? plan_.product == ProductMode::kSegments
                                                             ? ", made again in segments in every product"
                                                             : ", made again in every product"
                                       : ", " + format_count(plan_.kept_graphs) + " of them kept between products";
    add("micro-batch", text);
  }

  void memory() {
    const PlanBytes& bytes = plan_.bytes;
    add("memory", "of the largest rank");
    const auto add_row = [&](const std::string& kind, std::int64_t amount) {
      if (amount > 0) lines_.push_back(row(kind, amount));
    };
    add_row("process", bytes.process);
    add_row(is_shared() ? "parameters, a share of them" : "parameters", bytes.parameters);
    add_row("buffers", bytes.buffers);
    add_row("data", bytes.data);
    add_row(is_shared() ? "vectors, shares of them" : "vectors", bytes.vectors);
    add_row(bytes.basis_host > 0 ? "Lanczos vectors of full precision" : "Lanczos basis", bytes.basis);
    add_row(std::string("  or of the largest ") + noun() + ", later", plan_.block_bytes);
    add_row("micro-batches, kept", bytes.kept_graphs);
    add_row("a segment's parameters and vectors", bytes.gathered);
    add_row("a segment's products", bytes.sums);
    add_row("what crosses the cuts", bytes.crossing);
    add_row(is_shared()  ? "inside a segment, of a micro-batch"
            : measured() ? "activations and gradients of a product"
                         : "gradients (activations not known)",
            bytes.transient);
    add_row("  outputs of a micro-batch, in a graph", bytes.outputs);
    add_row("holes in the heap", bytes.holes);
    const auto of = [&](std::int64_t given, bool on_gpu) {
      return " of " + format_bytes(given) + ", of which " +
             format_bytes(std::max<std::int64_t>(0, usable_bytes(given, on_gpu))) + " may be planned with";
    };
    lines_.push_back(row("total", bytes.total()) + of(inputs_.machine.memory_bytes, inputs_.problem.on_gpu));
    if (bytes.crossing_host > 0) lines_.push_back(row("what crosses the cuts, in host memory", bytes.crossing_host));
    if (bytes.share_host > 0)
      lines_.push_back(row("shares of these, in host memory", bytes.share_host) +
                       of(inputs_.machine.host_memory_bytes, false));
    if (bytes.basis_host > 0)
      lines_.push_back(row("Lanczos basis, in host memory", bytes.basis_host) +
                       of(inputs_.machine.host_memory_bytes, false));
  }

  void cost() {
    if (plan_.messages_per_step > 0)
      add("messages", counted(plan_.messages_per_step, "collective call") + " a step, " +
                          format_bytes(plan_.message_bytes_per_step) + " sent by a rank" +
                          (inputs_.machine.bandwidth > 0 ? ", at " + rate(inputs_.machine.bandwidth) : ""));
    if (is_shared() && plan_.messages_per_step > 0)
      add("",
          format_count(plan_.product_messages) + " of the calls are a product's, however many micro-batches it has");
    if (inputs_.problem.precision != MatrixPrecision::kFp32)
      add("precision", "matrices are multiplied in " + to_string(inputs_.problem.precision) +
                           (measured() ? ", which the forecast has measured" : ""));
    add("products", format_count(plan_.products) + " at most, " + format_count(plan_.products_in_turn) +
                        " of them in the group that takes longest");
    if (inputs_.demand.adaptive)
      add("", "and what --rtol-trace and --density-w1 ask for beyond, " +
                  (inputs_.demand.max_products > 0 ? format_count(inputs_.demand.max_products) + " in all at most"
                                                   : "without a limit"));
    if (!inputs_.demand.blocks.empty())
      add("", "with " + describe_blocks(plan_, std::ssize(inputs_.demand.blocks), inputs_.demand.are_features));
    if (inputs_.by_shapes() && inputs_.timed())
      add("step", format_duration(plan_.step_s) + " for a Lanczos step of " + counted(plan_.lock_step, "probe") +
                      (plan_.data_ranks > 1
                           ? ", of it " + format_duration(plan_.messages_s) + " of messages that no arithmetic hides"
                           : ""));
    if (inputs_.timed())
      add("forecast", format_duration(plan_.run_s) + " at most, " + format_duration(plan_.product_s) +
                          " for a product of one probe");
  }

  void unknown() {
    if (!measured())
      add("not measured", "activations and times: they are not in the figures above, so it may yet not fit");
    else if (!inputs_.timed())
      add("not known", "the rate of arithmetic, and so no time: give it by --flops, as 400T");
    else if (plan_.data_ranks > 1 && inputs_.machine.bandwidth <= 0)
      add("not measured", "the bandwidth of messages: the forecast leaves them out");
  }

  const Plan& plan_;
  const PlanInputs& inputs_;
  std::vector<std::string> lines_;
};

}  // namespace

std::string describe_blocks(const Plan& plan, std::int64_t blocks, bool are_features) {
  std::string text =
      counted(blocks, are_features ? "feature" : "block") + ": at most " + counted(plan.block_products, "product");
  if (plan.blocks_s > 0) text += ", " + format_duration(plan.blocks_s);
  return text + ", " + format_bytes(plan.block_bytes) + " of vectors a rank";
}

std::vector<std::string> describe_ways(const PlanInputs& inputs) {
  std::vector<std::string> lines;
  for (const ParameterMemory way : {ParameterMemory::kReplicated, ParameterMemory::kSharded, ParameterMemory::kHost}) {
    const ParameterMemory asked = inputs.request.parameters;
    if (way == ParameterMemory::kHost && !inputs.problem.on_gpu) continue;
    if (asked != ParameterMemory::kAuto && asked != way) continue;
    PlanInputs one = inputs;
    one.request.parameters = way;
    const Plan plan = make_plan(one);
    const std::string where = counted(plan.groups, "group") + " of " + counted(plan.data_ranks, "rank");
    std::string text =
        (plan.fits ? "fits, " : "does not fit: ") + format_bytes(plan.bytes.total()) + " a rank in " + where;
    if (plan.bytes.total_host() > plan.bytes.basis_host)
      text += ", and " + format_bytes(plan.bytes.total_host()) + " of host memory";
    if (plan.fits && plan.run_s > 0) text += ", " + format_duration(plan.run_s) + " at most";
    lines.push_back(line(to_string(way), text));
  }
  return lines;
}

std::vector<std::string> describe(const Plan& plan, const PlanInputs& inputs) {
  return Description(plan, inputs).lines();
}

}  // namespace hesspect
