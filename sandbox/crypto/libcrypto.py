"""SM2 operations of the system's OpenSSL, called through cffi without a compiler. Only ``sm2`` uses this module.

Source:    OpenSSL 3.0 or later, library ``libcrypto.so.3`` (Debian package ``libssl3``): EVP for keys, signatures and
           encryption, ``EC_POINT_mul`` for the shared point, which EVP does not offer for SM2.
Security:  every call has contexts of its own and the keys are only read, so keys may be used from many threads; cffi
           releases the GIL during a call. Native objects free themselves, those with secrets wipe themselves.
           The error queue of the thread is emptied after every failure: Python's ``ssl`` reads the same queue.
Shapes:    ``Key`` is an opaque handle; points are 65 bytes, signatures and ciphertexts DER.
Errors:    ``Unavailable`` at first use if the library is missing or has no SM2; ``InvalidSpec`` for a private key
           that cannot be read; ``JobFailed`` if the library fails at what cannot fail.
Not here:  validation of points and DER, PEM of public keys, what a failed verification means. That is ``sm2``.
"""

from __future__ import annotations

import ctypes.util
import functools
from typing import Any, Final, TypeAlias

from cffi import FFI

from sandbox.errors import IntegrityFailed, InvalidSpec, JobFailed, Unavailable

Key: TypeAlias = Any  # an owned ``EVP_PKEY *``; cffi has no static types

SCALAR_SIZE: Final = 32  # bytes of a coordinate
POINT_SIZE: Final = 65  # bytes of 04 || x || y
PASSPHRASE_LIMIT: Final = 1024  # bytes; OpenSSL cuts a longer one without a word

_OLDEST: Final = 0x30000000  # OpenSSL 3.0.0
_NAMES: Final = ("libcrypto.so.3", "libcrypto.3.dylib", "libcrypto-3-x64.dll")
_NID_SM2: Final = 1172
_NID_HMAC_WITH_SHA256: Final = 799  # OpenSSL 3.0 cannot read PBKDF2 with HMAC-SM3
_PBKDF2_ITERATIONS: Final = 600_000
_SALT_SIZE: Final = 16  # bytes
_BIO_CTRL_INFO: Final = 3
_BN_FLG_CONSTTIME: Final = 4

_DECLARATIONS: Final = """
typedef struct evp_pkey_st EVP_PKEY;
typedef struct evp_pkey_ctx_st EVP_PKEY_CTX;
typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct evp_cipher_st EVP_CIPHER;
typedef struct bio_st BIO;
typedef struct bio_method_st BIO_METHOD;
typedef struct bignum_st BIGNUM;
typedef struct bignum_ctx BN_CTX;
typedef struct ec_group_st EC_GROUP;
typedef struct ec_point_st EC_POINT;
typedef struct pkcs8_priv_key_info_st PKCS8_PRIV_KEY_INFO;
typedef struct X509_sig_st X509_SIG;

unsigned long OpenSSL_version_num(void);
void ERR_clear_error(void);

EVP_PKEY_CTX *EVP_PKEY_CTX_new_from_name(void *, const char *, const char *);
EVP_PKEY_CTX *EVP_PKEY_CTX_new_from_pkey(void *, EVP_PKEY *, const char *);
void EVP_PKEY_CTX_free(EVP_PKEY_CTX *);
int EVP_PKEY_CTX_set1_id(EVP_PKEY_CTX *, const char *, int);
int EVP_PKEY_keygen_init(EVP_PKEY_CTX *);
int EVP_PKEY_generate(EVP_PKEY_CTX *, EVP_PKEY **);
int EVP_PKEY_check(EVP_PKEY_CTX *);
int EVP_PKEY_is_a(const EVP_PKEY *, const char *);
void EVP_PKEY_free(EVP_PKEY *);
int EVP_PKEY_get_bn_param(const EVP_PKEY *, const char *, BIGNUM **);
int EVP_PKEY_get_octet_string_param(const EVP_PKEY *, const char *, unsigned char *, size_t, size_t *);
int EVP_PKEY_get_size(const EVP_PKEY *);
EVP_PKEY *d2i_PUBKEY(EVP_PKEY **, const unsigned char **, long);

EVP_MD_CTX *EVP_MD_CTX_new(void);
void EVP_MD_CTX_free(EVP_MD_CTX *);
int EVP_DigestSignInit_ex(EVP_MD_CTX *, EVP_PKEY_CTX **, const char *, void *, const char *, EVP_PKEY *, void *);
int EVP_DigestSign(EVP_MD_CTX *, unsigned char *, size_t *, const unsigned char *, size_t);
int EVP_DigestVerifyInit_ex(EVP_MD_CTX *, EVP_PKEY_CTX **, const char *, void *, const char *, EVP_PKEY *, void *);
int EVP_DigestVerify(EVP_MD_CTX *, const unsigned char *, size_t, const unsigned char *, size_t);
int EVP_PKEY_encrypt_init(EVP_PKEY_CTX *);
int EVP_PKEY_encrypt(EVP_PKEY_CTX *, unsigned char *, size_t *, const unsigned char *, size_t);
int EVP_PKEY_decrypt_init(EVP_PKEY_CTX *);
int EVP_PKEY_decrypt(EVP_PKEY_CTX *, unsigned char *, size_t *, const unsigned char *, size_t);

const BIO_METHOD *BIO_s_secmem(void);
BIO *BIO_new(const BIO_METHOD *);
BIO *BIO_new_mem_buf(const void *, int);
long BIO_ctrl(BIO *, int, long, void *);
int BIO_free(BIO *);
EVP_PKEY *PEM_read_bio_PrivateKey(BIO *, EVP_PKEY **, void *, void *);
PKCS8_PRIV_KEY_INFO *EVP_PKEY2PKCS8(const EVP_PKEY *);
void PKCS8_PRIV_KEY_INFO_free(PKCS8_PRIV_KEY_INFO *);
X509_SIG *PKCS8_encrypt(int, const EVP_CIPHER *, const char *, int, unsigned char *, int, int, PKCS8_PRIV_KEY_INFO *);
void X509_SIG_free(X509_SIG *);
const EVP_CIPHER *EVP_sm4_cbc(void);
int PEM_write_bio_PKCS8(BIO *, const X509_SIG *);
int PEM_write_bio_PKCS8_PRIV_KEY_INFO(BIO *, const PKCS8_PRIV_KEY_INFO *);

EC_GROUP *EC_GROUP_new_by_curve_name(int);
EC_POINT *EC_POINT_new(const EC_GROUP *);
void EC_POINT_clear_free(EC_POINT *);
int EC_POINT_oct2point(const EC_GROUP *, EC_POINT *, const unsigned char *, size_t, BN_CTX *);
int EC_POINT_mul(const EC_GROUP *, EC_POINT *, const BIGNUM *, const EC_POINT *, const BIGNUM *, BN_CTX *);
int EC_POINT_get_affine_coordinates(const EC_GROUP *, const EC_POINT *, BIGNUM *, BIGNUM *, BN_CTX *);
BIGNUM *BN_new(void);
void BN_clear_free(BIGNUM *);
void BN_set_flags(BIGNUM *, int);
int BN_bn2binpad(const BIGNUM *, unsigned char *, int);
BN_CTX *BN_CTX_secure_new(void);
void BN_CTX_free(BN_CTX *);
"""

_ffi: Final = FFI()
_ffi.cdef(_DECLARATIONS)


@functools.cache
def _library() -> Any:
    """Load libcrypto, once.

    Raises:
        Unavailable: it is not installed, too old, or built without SM2.
    """
    missing = "SM2 needs OpenSSL 3 (libcrypto.so.3, Debian package libssl3)"
    for name in (*_NAMES, ctypes.util.find_library("crypto")):
        if name is None:
            continue
        try:
            library = _ffi.dlopen(name)
            if library.OpenSSL_version_num() < _OLDEST or not library.EVP_sm4_cbc():
                continue
        except (OSError, AttributeError):  # not there, or a library of that name that is not a whole OpenSSL
            continue
        context = library.EVP_PKEY_CTX_new_from_name(_ffi.NULL, b"SM2", _ffi.NULL)
        if context == _ffi.NULL:
            library.ERR_clear_error()
            raise Unavailable(f"{missing}; {name} was built without SM2")
        library.EVP_PKEY_CTX_free(context)
        return library
    raise Unavailable(f"{missing}, which was not found")


@functools.cache
def _group() -> Any:
    return _own(_library().EC_GROUP_new_by_curve_name(_NID_SM2))  # lives as long as the process


def generate() -> Key:
    """Return a new private key."""
    lib = _library()
    context = _own(lib.EVP_PKEY_CTX_new_from_name(_ffi.NULL, b"SM2", _ffi.NULL), lib.EVP_PKEY_CTX_free)
    made = _ffi.new("EVP_PKEY **")
    _must(lib.EVP_PKEY_keygen_init(context) == 1)
    _must(lib.EVP_PKEY_generate(context, made) == 1)
    return _own(made[0], lib.EVP_PKEY_free)


def read_private(pem: bytes, passphrase: bytes) -> Key:
    """Read a private key from PEM.

    Raises:
        InvalidSpec: it is not a sound SM2 key, or the passphrase is wrong.
    """
    lib = _library()
    source = _own(lib.BIO_new_mem_buf(_ffi.from_buffer(pem), len(pem)), lib.BIO_free)
    # Without a passphrase OpenSSL would ask the terminal; an empty one makes it fail instead.
    secret = _ffi.new("char[]", passphrase)
    raw = lib.PEM_read_bio_PrivateKey(source, _ffi.NULL, _ffi.NULL, secret)
    if raw == _ffi.NULL:
        lib.ERR_clear_error()
        raise InvalidSpec("this is not a private key in PEM, or its passphrase is another")
    key = _ffi.gc(raw, lib.EVP_PKEY_free)
    if lib.EVP_PKEY_is_a(key, b"SM2") != 1:
        raise InvalidSpec("this private key is not an SM2 key")
    context = _own(lib.EVP_PKEY_CTX_new_from_pkey(_ffi.NULL, key, _ffi.NULL), lib.EVP_PKEY_CTX_free)
    if lib.EVP_PKEY_check(context) != 1:
        lib.ERR_clear_error()
        raise InvalidSpec("the scalar of this private key is out of range or does not fit its public point")
    return key


def write_private(key: Key, passphrase: bytes | None) -> bytes:
    """Return a private key as PKCS#8 in PEM, encrypted (PBKDF2, SM4-CBC) if there is a passphrase."""
    lib = _library()
    info = _own(lib.EVP_PKEY2PKCS8(key), lib.PKCS8_PRIV_KEY_INFO_free)
    target = _own(lib.BIO_new(lib.BIO_s_secmem()), lib.BIO_free)
    if passphrase is None:
        _must(lib.PEM_write_bio_PKCS8_PRIV_KEY_INFO(target, info) == 1)
    else:
        encrypted = lib.PKCS8_encrypt(
            _NID_HMAC_WITH_SHA256, lib.EVP_sm4_cbc(), passphrase, len(passphrase),
            _ffi.NULL, _SALT_SIZE, _PBKDF2_ITERATIONS, info,
        )  # fmt: skip
        _must(lib.PEM_write_bio_PKCS8(target, _own(encrypted, lib.X509_SIG_free)) == 1)
    text = _ffi.new("char **")
    size = lib.BIO_ctrl(target, _BIO_CTRL_INFO, 0, text)
    return bytes(_ffi.buffer(text[0], size))


def read_public(der: bytes) -> Key:
    """Read a public key from a SubjectPublicKeyInfo whose point has been validated."""
    lib = _library()
    start = _ffi.from_buffer("unsigned char[]", der)
    return _own(lib.d2i_PUBKEY(_ffi.NULL, _ffi.new("unsigned char **", start), len(der)), lib.EVP_PKEY_free)


def public_point(key: Key) -> bytes:
    """Return the public point of a key, compressed if the key's file held it so."""
    lib = _library()
    out, size = _ffi.new("unsigned char[]", POINT_SIZE), _ffi.new("size_t *")
    _must(lib.EVP_PKEY_get_octet_string_param(key, b"pub", out, POINT_SIZE, size) == 1)
    return bytes(_ffi.buffer(out, size[0]))


def sign(key: Key, identity: bytes, message: bytes) -> bytes:
    """Return the SM2-SM3 signature of ``message`` in DER."""
    lib = _library()
    context = _own(lib.EVP_MD_CTX_new(), lib.EVP_MD_CTX_free)
    inner = _ffi.new("EVP_PKEY_CTX **")
    _must(lib.EVP_DigestSignInit_ex(context, inner, b"SM3", _ffi.NULL, _ffi.NULL, key, _ffi.NULL) == 1)
    _must(lib.EVP_PKEY_CTX_set1_id(inner[0], identity, len(identity)) == 1)
    size = _ffi.new("size_t *", lib.EVP_PKEY_get_size(key))
    out = _ffi.new("unsigned char[]", size[0])
    _must(lib.EVP_DigestSign(context, out, size, message, len(message)) == 1)
    return bytes(_ffi.buffer(out, size[0]))


def verify(key: Key, identity: bytes, message: bytes, signature: bytes) -> None:
    """Check an SM2-SM3 signature in DER.

    Raises:
        IntegrityFailed: it is not this key's over this message.
    """
    lib = _library()
    context = _own(lib.EVP_MD_CTX_new(), lib.EVP_MD_CTX_free)
    inner = _ffi.new("EVP_PKEY_CTX **")
    _must(lib.EVP_DigestVerifyInit_ex(context, inner, b"SM3", _ffi.NULL, _ffi.NULL, key, _ffi.NULL) == 1)
    _must(lib.EVP_PKEY_CTX_set1_id(inner[0], identity, len(identity)) == 1)
    if lib.EVP_DigestVerify(context, signature, len(signature), message, len(message)) != 1:
        lib.ERR_clear_error()
        raise IntegrityFailed("an SM2 signature does not verify")


def encrypt(key: Key, plaintext: bytes) -> bytes:
    """Return the SM2 ciphertext of ``plaintext``, C1C3C2 in DER."""
    lib = _library()
    context = _own(lib.EVP_PKEY_CTX_new_from_pkey(_ffi.NULL, key, _ffi.NULL), lib.EVP_PKEY_CTX_free)
    size = _ffi.new("size_t *")
    _must(lib.EVP_PKEY_encrypt_init(context) == 1)
    _must(lib.EVP_PKEY_encrypt(context, _ffi.NULL, size, plaintext, len(plaintext)) == 1)
    out = _ffi.new("unsigned char[]", size[0])
    _must(lib.EVP_PKEY_encrypt(context, out, size, plaintext, len(plaintext)) == 1)
    return bytes(_ffi.buffer(out, size[0]))


def decrypt(key: Key, ciphertext: bytes) -> bytes:
    """Return the plaintext of an SM2 ciphertext, C1C3C2 in DER.

    Raises:
        IntegrityFailed: it was not made for this key, or was changed.
    """
    lib = _library()
    context = _own(lib.EVP_PKEY_CTX_new_from_pkey(_ffi.NULL, key, _ffi.NULL), lib.EVP_PKEY_CTX_free)
    _must(lib.EVP_PKEY_decrypt_init(context) == 1)
    size = _ffi.new("size_t *", len(ciphertext))  # a plaintext is always shorter
    out = _ffi.new("unsigned char[]", size[0])
    if lib.EVP_PKEY_decrypt(context, out, size, ciphertext, len(ciphertext)) != 1:
        lib.ERR_clear_error()
        raise IntegrityFailed("an SM2 ciphertext does not open")
    return bytes(_ffi.buffer(out, size[0]))


def multiply(key: Key, point: bytes) -> bytes:
    """Return the x coordinate of a validated point times the private scalar, in constant time."""
    lib = _library()
    group, scratch = _group(), _own(lib.BN_CTX_secure_new(), lib.BN_CTX_free)
    slot = _ffi.new("BIGNUM **")
    _must(lib.EVP_PKEY_get_bn_param(key, b"priv", slot) == 1)
    scalar = _own(slot[0], lib.BN_clear_free)
    lib.BN_set_flags(scalar, _BN_FLG_CONSTTIME)
    theirs = _own(lib.EC_POINT_new(group), lib.EC_POINT_clear_free)
    shared = _own(lib.EC_POINT_new(group), lib.EC_POINT_clear_free)
    x = _own(lib.BN_new(), lib.BN_clear_free)
    _must(lib.EC_POINT_oct2point(group, theirs, point, len(point), scratch) == 1)
    _must(lib.EC_POINT_mul(group, shared, _ffi.NULL, theirs, scalar, scratch) == 1)
    _must(lib.EC_POINT_get_affine_coordinates(group, shared, x, _ffi.NULL, scratch) == 1)
    out = _ffi.new("unsigned char[]", SCALAR_SIZE)
    _must(lib.BN_bn2binpad(x, out, SCALAR_SIZE) == SCALAR_SIZE)
    return bytes(_ffi.buffer(out, SCALAR_SIZE))


def _own(pointer: Any, free: Any = None) -> Any:
    """Return ``pointer``, to be freed with ``free`` when nothing refers to it."""
    _must(pointer != _ffi.NULL)
    return pointer if free is None else _ffi.gc(pointer, free)


def _must(condition: bool) -> None:
    """Stop if a call failed that only a lack of memory or a broken library lets fail."""
    if not condition:
        _library().ERR_clear_error()
        raise JobFailed("libcrypto failed at an operation that cannot fail on valid input")
