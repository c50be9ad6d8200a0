/* The Python face: bytes in, bytes out, without the interpreter's lock. sandbox/crypto/_modexp/lanes.py is its only
 * user.
 *
 * Sizes and places are checked here, since they keep memory safe; that elements are less than the modulus is checked
 * in sandbox/crypto/modexp.py.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "backend.h"

#include <stdlib.h>
#include <string.h>

#ifdef MODEXP_HAS_IFMA

static const char MODULUS[] = "sandbox.crypto._modexp.modulus", TABLE[] = "sandbox.crypto._modexp.table";

static int ifma_runs(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512ifma") &&
           __builtin_cpu_supports("avx512vbmi");
}

/* Results of `count` numbers of `size` bytes. */
static PyObject *new_results(size_t count, size_t size)
{
    if (count <= PY_SSIZE_T_MAX / size)
        return PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count * size));
    return PyErr_NoMemory();
}

/* Return the results, or an error if there was no memory for the work space. */
static PyObject *finish(int failed, PyObject *results)
{
    if (!failed)
        return results;
    Py_DECREF(results);
    return PyErr_NoMemory();
}

static uint8_t *bytes_of(PyObject *results)
{
    return (uint8_t *)PyBytes_AsString(results);
}

static void forget_modulus(PyObject *capsule)
{
    struct modulus *m = PyCapsule_GetPointer(capsule, MODULUS);

    modexp_wipe(m, sizeof *m); /* a prime's square is a secret */
    free(m);
}

static void free_table(struct table *t)
{
    if (t->powers)
        modexp_wipe(t->powers, t->powers_size);
    free(t->powers);
    modexp_wipe(t, sizeof *t);
    free(t);
}

static void forget_table(PyObject *capsule)
{
    free_table(PyCapsule_GetPointer(capsule, TABLE));
}

static PyObject *modulus(PyObject *module, PyObject *arguments)
{
    Py_buffer n, one, square;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*y*:modulus", &n, &one, &square))
        return NULL;
    struct modulus *m = malloc(sizeof *m);
    if (m == NULL) {
        PyErr_NoMemory();
    } else if (!ifma_runs()) {
        PyErr_SetString(PyExc_ValueError, "this processor has no AVX512-IFMA");
    } else if (one.len != n.len || square.len != n.len ||
               modexp_prepare(m, n.buf, one.buf, square.buf, (size_t)n.len) != 0) {
        PyErr_SetString(PyExc_ValueError, "that is no modulus");
    } else {
        result = PyCapsule_New(m, MODULUS, forget_modulus);
    }
    if (result == NULL)
        free(m);
    PyBuffer_Release(&n);
    PyBuffer_Release(&one);
    PyBuffer_Release(&square);
    return result;
}

static PyObject *multiply(PyObject *module, PyObject *arguments)
{
    PyObject *capsule, *results = NULL;
    Py_buffer left, right;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oy*y*:multiply", &capsule, &left, &right))
        return NULL;
    const struct modulus *m = PyCapsule_GetPointer(capsule, MODULUS);
    if (m && (left.len != right.len || (size_t)left.len % m->size != 0)) {
        PyErr_SetString(PyExc_ValueError, "the elements do not fit the modulus or each other");
    } else if (m && (results = new_results((size_t)left.len / m->size, m->size))) {
        uint8_t *to = bytes_of(results);
        int failed;

        Py_BEGIN_ALLOW_THREADS
        failed = modexp_multiply(m, left.buf, right.buf, (size_t)left.len / m->size, to);
        Py_END_ALLOW_THREADS
        results = finish(failed, results);
    }
    PyBuffer_Release(&left);
    PyBuffer_Release(&right);
    return results;
}

/* Return the number of runs, or -1 with an error unless all of them are of elements and powers that are there. */
static Py_ssize_t check_runs(const int64_t *order, size_t order_count, const int64_t *starts, size_t starts_count,
                             size_t elements, size_t powers)
{
    int sound = starts_count > 0 && powers > 1 && starts[0] >= 0;

    for (size_t i = 0; sound && i + 1 < starts_count; i++)
        sound = starts[i + 1] >= starts[i] && (uint64_t)(starts[i + 1] - starts[i]) < powers;
    sound = sound && (uint64_t)starts[starts_count - 1] <= order_count;
    for (size_t i = 0; sound && i < order_count; i++)
        sound = order[i] >= 0 && (uint64_t)order[i] < elements;
    if (sound)
        return (Py_ssize_t)starts_count - 1;
    PyErr_SetString(PyExc_ValueError, "the runs are out of range");
    return -1;
}

/* A copy, since another thread may write into a buffer while it is read. */
static int64_t *copy_places(const Py_buffer *buffer)
{
    int64_t *places = malloc((size_t)buffer->len + 1);

    if (places)
        memcpy(places, buffer->buf, (size_t)buffer->len);
    else
        PyErr_NoMemory();
    return places;
}

static PyObject *chains(PyObject *module, PyObject *arguments)
{
    PyObject *capsule, *results = NULL;
    Py_buffer powers, elements, order, starts;
    int64_t *places = NULL, *bounds = NULL;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oy*y*y*y*:chains", &capsule, &powers, &elements, &order, &starts))
        return NULL;
    const struct modulus *m = PyCapsule_GetPointer(capsule, MODULUS);
    Py_ssize_t runs = -1;
    if (m && (order.len % 8 || starts.len % 8 || (size_t)elements.len % m->size || (size_t)powers.len % m->size))
        PyErr_SetString(PyExc_ValueError, "the elements, powers or places are not whole");
    else if (m && (places = copy_places(&order)) && (bounds = copy_places(&starts)))
        runs = check_runs(places, (size_t)order.len / 8, bounds, (size_t)starts.len / 8,
                          (size_t)elements.len / m->size, (size_t)powers.len / m->size);
    if (runs >= 0 && (results = new_results((size_t)runs, m->size))) {
        uint8_t *to = bytes_of(results);
        int failed;

        Py_BEGIN_ALLOW_THREADS
        failed = modexp_chains(m, powers.buf, elements.buf, places, bounds, (size_t)runs, to);
        Py_END_ALLOW_THREADS
        results = finish(failed, results);
    }
    free(places);
    free(bounds);
    PyBuffer_Release(&powers);
    PyBuffer_Release(&elements);
    PyBuffer_Release(&order);
    PyBuffer_Release(&starts);
    return results;
}

static PyObject *power(PyObject *module, PyObject *arguments)
{
    PyObject *capsule, *results = NULL;
    Py_buffer elements, exponent;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oy*y*:power", &capsule, &elements, &exponent))
        return NULL;
    const struct modulus *m = PyCapsule_GetPointer(capsule, MODULUS);
    if (m && ((size_t)elements.len % m->size || exponent.len > MAX_EXPONENT)) {
        PyErr_SetString(PyExc_ValueError, "the elements do not fit the modulus, or the exponent is too long");
    } else if (m && (results = new_results((size_t)elements.len / m->size, m->size))) {
        uint8_t *to = bytes_of(results);
        int failed;

        Py_BEGIN_ALLOW_THREADS
        failed = modexp_power(m, elements.buf, (size_t)elements.len / m->size, exponent.buf, (size_t)exponent.len, to);
        Py_END_ALLOW_THREADS
        results = finish(failed, results);
    }
    PyBuffer_Release(&elements);
    PyBuffer_Release(&exponent);
    return results;
}

/* Make room for a table; return NULL with an error where that is not possible. */
static struct table *new_table(const struct modulus *m, size_t bits, size_t window)
{
    struct table *t = calloc(1, sizeof *t);

    if (t) {
        t->modulus = *m;
        t->bits = bits;
        t->window = window;
        t->windows = (bits + window - 1) / window;
        t->digits = (size_t)1 << window;
        t->digits = t->digits < LANES ? LANES : t->digits;
        t->powers_size = t->windows * t->digits * m->limbs * sizeof(uint64_t);
        t->powers = aligned_alloc(64, t->powers_size); /* a multiple of 64: there are at least 8 digits */
    }
    if (t && t->powers)
        return t;
    if (t)
        free_table(t);
    PyErr_NoMemory();
    return NULL;
}

static PyObject *table(PyObject *module, PyObject *arguments)
{
    PyObject *capsule, *result = NULL;
    Py_buffer base;
    Py_ssize_t bits, window;
    struct table *t = NULL;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oy*nn:table", &capsule, &base, &bits, &window))
        return NULL;
    const struct modulus *m = PyCapsule_GetPointer(capsule, MODULUS);
    if (m && ((size_t)base.len != m->size || bits < 1 || bits > 8 * MAX_EXPONENT || window < 1 || window > MAX_WINDOW))
        PyErr_SetString(PyExc_ValueError, "the base does not fit the modulus, or a length is out of range");
    else if (m && (t = new_table(m, (size_t)bits, (size_t)window))) {
        int failed;

        Py_BEGIN_ALLOW_THREADS
        failed = modexp_fill(t, base.buf);
        Py_END_ALLOW_THREADS
        result = failed ? PyErr_NoMemory() : PyCapsule_New(t, TABLE, forget_table);
        if (result == NULL)
            free_table(t);
    }
    PyBuffer_Release(&base);
    return result;
}

static PyObject *nbytes(PyObject *module, PyObject *capsule)
{
    const struct table *t = PyCapsule_GetPointer(capsule, TABLE);

    (void)module;
    return t ? PyLong_FromSize_t(t->powers_size) : NULL;
}

static PyObject *look_up(PyObject *module, PyObject *arguments)
{
    PyObject *capsule, *results = NULL;
    Py_buffer exponents;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oy*:look_up", &capsule, &exponents))
        return NULL;
    const struct table *t = PyCapsule_GetPointer(capsule, TABLE);
    size_t size = t ? (t->bits + 7) / 8 : 1, count = (size_t)exponents.len / size;
    if (t && (size_t)exponents.len % size) {
        PyErr_SetString(PyExc_ValueError, "the exponents are not whole");
    } else if (t && (results = new_results(count, t->modulus.size))) {
        uint8_t *to = bytes_of(results);
        int failed;

        Py_BEGIN_ALLOW_THREADS
        failed = modexp_look_up(t, exponents.buf, count, to);
        Py_END_ALLOW_THREADS
        results = finish(failed, results);
    }
    PyBuffer_Release(&exponents);
    return results;
}

#endif

static PyObject *runs(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
#ifdef MODEXP_HAS_IFMA
    return PyBool_FromLong(ifma_runs());
#else
    return PyBool_FromLong(0);
#endif
}

static PyMethodDef functions[] = {
    {"runs", runs, METH_NOARGS, "runs() -> whether this processor can"},
#ifdef MODEXP_HAS_IFMA
    {"modulus", modulus, METH_VARARGS, "modulus(n, R mod n, R^2 mod n) -> a modulus"},
    {"multiply", multiply, METH_VARARGS, "multiply(modulus, left, right) -> products of pairs"},
    {"chains", chains, METH_VARARGS, "chains(modulus, powers of R, elements, order, starts) -> products of runs"},
    {"power", power, METH_VARARGS, "power(modulus, elements, exponent) -> powers"},
    {"table", table, METH_VARARGS, "table(modulus, base, bits, window) -> a table"},
    {"nbytes", nbytes, METH_O, "nbytes(table) -> its size"},
    {"look_up", look_up, METH_VARARGS, "look_up(table, exponents) -> powers of its base"},
#endif
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "Arithmetic modulo large odd numbers, eight at a time.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
