/*! A count of TVM's objects, by which tests see that nothing is left behind. */
#ifndef ALC_CORE_OBJECTS_H_
#define ALC_CORE_OBJECTS_H_

#include <cstdint>

namespace alc {

/*! Counts every object that is made from now on. Call it once, before the first is made by
 *  another thread. Throws Failure. */
void CountObjects();

/*! How many of the counted objects are alive in this process: functions, tensors, arrays, ... */
int64_t LiveObjects();

}  // namespace alc

#endif  // ALC_CORE_OBJECTS_H_
