#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>

#include "hesspect/spectrum/trace.h"

namespace hesspect {

double normal_quantile(double confidence) { return boost::math::quantile(boost::math::normal(), 0.5 + confidence / 2); }

double student_quantile(double confidence, std::int64_t degrees) {
  return boost::math::quantile(boost::math::students_t(static_cast<double>(degrees)), 0.5 + confidence / 2);
}

}  // namespace hesspect
