/** How devices are named in settings. Imports nothing, so that the table of settings can use it. */

export const DEVICE_PATTERN = /^(?:auto|cpu|metal|cuda(?::\d{1,4})?)$/;
export const DEVICE_WORDS = "auto, cpu, cuda, cuda:N with the number of a device, and metal";
