/* Calls a log function of the program's, which takes its arguments as a va_list: only C can make one. */

#include <stdarg.h>

void vixdisklib_capi_log(void (*function)(const char *format, va_list arguments), const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    function(format, arguments);
    va_end(arguments);
}
